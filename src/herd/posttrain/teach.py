"""A large model teaches a small one (paper 4.3.1: models of 8B and 70B gain from the data of larger ones).

    taught = teach(inputs, settings, folder / "taught")
    alone = learn_alone(inputs, settings, folder / "alone")

Both start from the same student and spend the same steps of the same batches; the first learns from the teacher's
accepted answers, the second from its own to the same prompts. What differs between them is the teacher. Learning from
the teacher's logits besides its text is `settings.distil`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from herd.config import fingerprint, to_plain
from herd.devices import device_of
from herd.errors import NoEffectError, SettingError
from herd.files import write_json
from herd.llama.model import Llama
from herd.posttrain.collect import Collected, Means, collect
from herd.posttrain.ledger import Ledger
from herd.posttrain.quality import distinct
from herd.posttrain.records import Accepted, Prompt
from herd.posttrain.settings import TeachSettings
from herd.posttrain.steps import Steps, load_policy, save_policy
from herd.posttrain.training import (
    Conversation,
    model_key,
    sft_dialogues,
    train_distilled,
    train_sft,
    training_report,
)
from herd.progress import Progress, Silent
from herd.text.tokenizer import Tokenizer
from herd.train.objectives.reward import RewardModel


@dataclass(frozen=True)
class TeachInputs:
    """`means` are the student's. A teacher with another tokenizer or engine brings `teacher_means` of its own."""

    student: Llama
    teacher: Llama
    tasks: Sequence[Prompt]
    seed_dialogues: Sequence[Conversation]
    means: Means
    teacher_means: Means | None = None
    teacher_reward: RewardModel | None = None
    teacher_accepted: Sequence[Accepted] = ()  # from the teacher's own rounds
    policy: Llama | None = None  # what draws in `learn_alone`; the student itself unless given
    policy_reward: RewardModel | None = None
    extra_dialogues: Sequence[Conversation] = ()


@dataclass(frozen=True)
class TeachResult:
    """The trained student, the answers that it learnt from, and a plain dict of counts, also in `teach.json`."""

    model: Llama
    accepted: list[Accepted]
    report: dict[str, Any]


def teach(inputs: TeachInputs, settings: TeachSettings, folder: Path, progress: Progress | None = None) -> TeachResult:
    """Train a copy of the student on the teacher's accepted answers, mixed as the settings say.

    Raises NoEffectError when the teacher has no accepted answer, SettingError when logits are to be distilled between
    different tokenizers.
    """
    progress = progress or Silent()
    tokenizer, means = inputs.means.tokenizer, inputs.teacher_means or inputs.means
    if settings.distil is not None and means.tokenizer.fingerprint != tokenizer.fingerprint:
        raise SettingError(
            "logits can only be distilled between models of one tokenizer",
            where="TeachSettings.distil",
            mend="set distil to null: the teacher's text teaches across tokenizers",
        )
    steps = Steps(Path(folder), _key("teach", inputs, settings), progress)
    collected = Collected([], [], {})
    if settings.draw_anew:
        collected = collect(
            inputs.teacher, inputs.teacher_reward, inputs.tasks, means, settings.collect, steps, progress
        )
    ledger = Ledger()
    accepted = distinct([*inputs.teacher_accepted, *collected.accepted], settings.collect.quality, ledger)
    if not accepted:
        raise NoEffectError(
            "the teacher has no accepted answer to teach with",
            where=str(folder),
            mend="set draw_anew=true, or hand in the accepted answers of its rounds",
        )
    report = {**collected.report, "merged": {"accepted": len(accepted), "quality": ledger.report()}}
    return _train(inputs, settings, steps, accepted, report, inputs.teacher, means.tokenizer, progress)


def learn_alone(
    inputs: TeachInputs, settings: TeachSettings, folder: Path, progress: Progress | None = None
) -> TeachResult:
    """The same budget without the teacher: the student learns from its own accepted answers to the same prompts.

    Where it has none, it learns from the rest of the mix, and the report says so: that too is what no teacher means.
    """
    progress = progress or Silent()
    steps = Steps(Path(folder), _key("alone", inputs, settings), progress)
    policy = inputs.policy or inputs.student
    collected = collect(policy, inputs.policy_reward, inputs.tasks, inputs.means, settings.collect, steps, progress)
    if not collected.accepted:
        progress.note(f"the student alone: {collected.report['no_answers']}; it learns from the rest of the mix")
    settings = replace(settings, distil=None)
    return _train(inputs, settings, steps, collected.accepted, collected.report, None, None, progress)


def _train(
    inputs: TeachInputs,
    settings: TeachSettings,
    steps: Steps,
    accepted: list[Accepted],
    report: dict[str, Any],
    teacher: Llama | None,
    teacher_tokenizer: Tokenizer | None,
    progress: Progress,
) -> TeachResult:
    """SFT of the student on the mix, with the teacher's logits where the settings ask for them."""
    tokenizer, scratch = inputs.means.tokenizer, steps.scratch("sft")

    def make(folder: Path) -> None:
        ledger, sft = Ledger(), settings.sft
        parts = {
            "seed": (inputs.seed_dialogues, settings.mix.seed),
            "accepted": ([one.messages for one in accepted], settings.mix.accepted),
            "extra": (inputs.extra_dialogues, settings.mix.extra),
        }
        dialogues, counts = sft_dialogues(parts, tokenizer, sft.seq_len, settings.seed, ledger)
        if teacher is not None and teacher_tokenizer is not None and settings.distil is not None:
            name = teacher_tokenizer.fingerprint
            model, result = train_distilled(
                inputs.student, teacher, dialogues, sft, settings.distil, tokenizer, name, scratch, progress
            )
        else:
            model, result = train_sft(inputs.student, dialogues, sft, tokenizer, scratch, progress)
        made = training_report(result) | {"dialogues": counts, "quality": ledger.report()}
        save_policy(folder, model, tokenizer, made)

    model, trained = steps.run("sft", make, partial(load_policy, device=device_of(inputs.student)))
    report = {**report, "sft": trained, "distilled": settings.distil is not None}
    write_json(steps.folder / "teach.json", report)
    return TeachResult(model, accepted, report)


def _key(kind: str, inputs: TeachInputs, settings: TeachSettings) -> dict[str, Any]:
    """Everything that decides what the student becomes."""
    teachers = (inputs.teacher, inputs.teacher_reward) if kind == "teach" else ()
    models = (inputs.student, inputs.policy, inputs.policy_reward, *teachers)
    dialogues = [*inputs.seed_dialogues, *inputs.extra_dialogues, *(one.messages for one in inputs.teacher_accepted)]
    return {
        "kind": kind,
        "settings": to_plain(settings),
        "models": [None if model is None else model_key(model) for model in models],
        "tokenizer": inputs.means.tokenizer.fingerprint,
        "tasks": fingerprint([[task.id, list(map(repr, task.messages))] for task in inputs.tasks]),
        "dialogues": fingerprint([list(map(repr, messages)) for messages in dialogues]),
    }
