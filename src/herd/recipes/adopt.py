"""Recipes of fine-tuning what was adopted: each is a function that returns a complete `Adoption`.

    herd train adopt-sft --model FOLDER --data dialogues.jsonl
    herd train adopt-dpo --model FOLDER --data pairs.jsonl
    herd train adopt-reward --model FOLDER --data pairs.jsonl
    herd train adopt-distil --model FOLDER --data prompts.jsonl --teacher http://localhost:8000/v1

All begin with an adapter; `in_full` trains every weight instead. Rates of adapters are ten to twenty times those of
full training, as Hu et al. 2021 and Dettmers et al. 2023 found. They are for models of billions of parameters: a model
of a million learns at ten to a hundred times of each (measured; docs/log.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from herd.config import unknown
from herd.posttrain.adoption import Adoption, TeacherSettings
from herd.train.settings import TrainSettings


def _training(peak_lr: float, schedule_steps: int = 100_000) -> TrainSettings:
    return TrainSettings(
        steps=schedule_steps,  # the most; the epochs over the data cut it
        batch_tokens=2**15,
        seq_len=2048,
        microbatch_tokens=2048,
        peak_lr=peak_lr,
        warmup_steps=100,  # at most a tenth of the steps
        min_lr_ratio=0.1,
        weight_decay=0.0,
        dtype="bfloat16",  # what the release is stored in
        validate_every=200,
        spike_factor=0.0,  # single batches of mixed dialogues differ widely
    )


def adopt_sft() -> Adoption:
    return Adoption(
        name="adopt-sft",
        about="fine-tune a model on dialogues, through an adapter",
        objective="sft",
        train=_training(2e-4),  # Dettmers et al. 2023 (QLoRA), 7B to 13B; TRL's examples of LoRA
    )


def adopt_dpo() -> Adoption:
    return Adoption(
        name="adopt-dpo",
        about="prefer the better of two answers, through an adapter",
        objective="dpo",
        train=_training(2e-5),  # herd's choice between TRL's example of LoRA (5e-6) and the usual 5e-5 at most
        max_epochs=1.0,
    )


def adopt_reward() -> Adoption:
    return Adoption(
        name="adopt-reward",
        about="learn to score answers from pairs of them, through an adapter",
        objective="reward",
        train=_training(1e-4),  # TRL's example of LoRA
        max_epochs=1.0,
    )


def adopt_distil() -> Adoption:
    return Adoption(
        name="adopt-distil",
        about="learn from a larger model: a served one's answers, or the distribution of one in a folder",
        objective="distil",
        train=_training(2e-4),  # as SFT, which it is but for the target
        answers="last",  # the teacher's; earlier ones are the dataset's
        teacher=TeacherSettings(),
    )


ADOPTIONS: dict[str, Callable[[], Adoption]] = {
    "adopt-sft": adopt_sft,
    "adopt-dpo": adopt_dpo,
    "adopt-reward": adopt_reward,
    "adopt-distil": adopt_distil,
}
# sft: paper 4.1.3. dpo: the paper's 1e-5 (4.1.4) is for batches that it does not tell; at 8 pairs a step 5e-7 (TRL's
# example, Tunstall et al. 2023) to 5e-6 is usual, and 1e-6 is herd's choice. reward: Llama 2's 1e-5 (5e-6 at 70B),
# TRL's example 1e-5. distil: as sft.
_FULL_LR = {"sft": 1e-5, "dpo": 1e-6, "reward": 1e-5, "distil": 1e-5}


def find_adoption(name: str) -> Adoption:
    """A recipe by its name, or by its objective alone (sft, dpo, reward, distil)."""
    make = ADOPTIONS.get(name) or ADOPTIONS.get(f"adopt-{name}")
    if make is None:
        raise unknown(name, [*ADOPTIONS, *(full.removeprefix("adopt-") for full in ADOPTIONS)], "a recipe of training")
    return make()


def in_full(adoption: Adoption) -> Adoption:
    """The same training of every weight, at the rate that this takes; what is in full already stays as it is."""
    if adoption.adapter is None:
        return adoption
    train = replace(adoption.train, peak_lr=_FULL_LR[adoption.objective])
    return replace(adoption, adapter=None, base="plain", train=train)
