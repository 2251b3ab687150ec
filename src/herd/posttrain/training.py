"""A round's trainings, wired onto the one loop of `train/`: SFT, reward model, DPO, and scoring with a reward model.

Messages become ids here; what does not fit a row is left out and counted. There is no second loop here and no
choice of data.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from herd.errors import NoEffectError
from herd.llama.model import Llama
from herd.posttrain.judge import Scorer
from herd.posttrain.ledger import Drop, Ledger
from herd.posttrain.records import Preference, reply_text
from herd.posttrain.select import chance, mix
from herd.posttrain.settings import DistilSettings, DpoSettings, RewardSettings
from herd.progress import Progress
from herd.text.chat import Dialogue, encode_dialogue, encode_prompt
from herd.text.message import Message
from herd.text.tokenizer import Tokenizer
from herd.train.history import TrainResult
from herd.train.loop import train
from herd.train.objectives.distillation import Distillation
from herd.train.objectives.dpo import DirectPreference, reference_logprobs
from herd.train.objectives.language_modelling import SupervisedFinetuning
from herd.train.objectives.reward import RewardModel, RewardObjective, score
from herd.train.pairs import PairBatches
from herd.train.pairs import Preference as EncodedPair
from herd.train.settings import TrainSettings
from herd.train.sources import Batches, PackedRows
from herd.train.teacher import TaughtRows, TeacherTopK, store_teacher_topk

TOO_LONG = "longer than a row"
Conversation = Sequence[Message]
Comparison = tuple[tuple[Message, ...], Message, Message]  # prompt, better reply, worse reply


def model_key(model: nn.Module) -> str:
    """A short hash of all weights: names the policy that drew a file of candidates."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def sft_dialogues(
    parts: Mapping[str, tuple[Sequence[Conversation], float]],
    tokenizer: Tokenizer,
    seq_len: int,
    seed: int,
    ledger: Ledger,
) -> tuple[list[Dialogue], dict[str, int]]:
    """The SFT mix, encoded: name -> (conversations, how often each). Returns it with the dialogues of each part.

    What does not fit a row of `seq_len` is counted in the ledger; each conversation is encoded once.
    """
    encoded: list[tuple[list[Dialogue], float]] = []
    for conversations, times in parts.values():
        encoded.append((_encode(conversations if times else (), tokenizer, seq_len, ledger), times))
    counts = {name: len(dialogues) for name, (dialogues, _) in zip(parts, encoded, strict=True)}
    return mix(encoded, seed), counts


def _encode(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, seq_len: int, ledger: Ledger
) -> list[Dialogue]:
    fitting = []
    for messages in conversations:
        ledger.look(TOO_LONG)
        dialogue = encode_dialogue(tokenizer, messages)
        if len(dialogue.ids) <= seq_len:
            fitting.append(dialogue)
        else:
            ledger.drop(Drop("", -1, TOO_LONG, f"{len(dialogue.ids)} of {seq_len} tokens", reply_text(messages[-1])))
    return fitting


def encode_pairs(
    preferences: Iterable[Comparison],
    tokenizer: Tokenizer,
    seq_len: int,
    ledger: Ledger,
) -> list[EncodedPair]:
    """(prompt, better, worse) as pairs of dialogues that share their prompt's ids; too long ones are counted."""
    pairs = []
    for prompt, better, worse in preferences:
        ledger.look(TOO_LONG)
        chosen, rejected = (encode_dialogue(tokenizer, (*prompt, reply)) for reply in (better, worse))
        longest = max(len(chosen.ids), len(rejected.ids))
        if longest <= seq_len:
            pairs.append(EncodedPair(chosen, rejected, len(encode_prompt(tokenizer, prompt))))
        else:
            ledger.drop(Drop("", -1, TOO_LONG, f"{longest} of {seq_len} tokens", reply_text(worse)))
    return pairs


def train_sft(
    start: Llama,
    dialogues: Sequence[Dialogue],
    settings: TrainSettings,
    tokenizer: Tokenizer,
    folder: Path,
    progress: Progress,
) -> tuple[Llama, TrainResult]:
    """Supervised finetuning of a copy of `start`; `folder` keeps the run's checkpoints until it is done."""
    model = copy.deepcopy(start)
    rows = PackedRows(dialogues, settings.seq_len, settings.seed, tokenizer.pad)
    result = train(
        model, SupervisedFinetuning(), Batches(rows, settings), settings, folder, progress, tokenizer=tokenizer
    )
    return model, result


def train_distilled(
    start: Llama,
    teacher: Llama,
    dialogues: Sequence[Dialogue],
    settings: TrainSettings,
    distil: DistilSettings,
    tokenizer: Tokenizer,
    teacher_fingerprint: str,
    folder: Path,
    progress: Progress,
) -> tuple[Llama, TrainResult]:
    """SFT of a copy of `start` that also learns the teacher's distribution over every trained token.

    The teacher reads each row once, before; its `top_k` answers stay in `folder/teacher` until the training is done.
    Raises SettingError when teacher and student do not share a tokenizer.
    """
    model = copy.deepcopy(start)
    rows = PackedRows(dialogues, settings.seq_len, settings.seed, tokenizer.pad)
    stored = folder / "teacher"
    if not stored.exists():
        store_teacher_topk(
            stored,
            teacher,
            rows,
            rows.n_rows,
            distil.top_k,
            tokenizer_fingerprint=teacher_fingerprint,
            temperature=distil.temperature,
            rows_per_batch=settings.rows_per_microbatch,
            progress=progress,
        )
    taught = TaughtRows(rows, TeacherTopK.open(stored, tokenizer.fingerprint))
    objective = Distillation(mix=distil.weight)
    return model, train(model, objective, Batches(taught, settings), settings, folder, progress, tokenizer=tokenizer)


def train_dpo(
    reference: Llama,
    pairs: Sequence[EncodedPair],
    settings: DpoSettings,
    tokenizer: Tokenizer,
    folder: Path,
    progress: Progress,
) -> tuple[Llama, TrainResult]:
    """DPO of a copy of `reference` against it; the reference's log-probabilities are computed once, before."""
    train_settings = within_epochs(settings.train, len(pairs), settings.max_epochs)
    budget = train_settings.microbatch_tokens or train_settings.batch_tokens
    known_P2 = reference_logprobs(reference, pairs, budget, progress)
    model = copy.deepcopy(reference)
    source = PairBatches(pairs, train_settings, known_P2, tokenizer.pad)
    objective = DirectPreference(settings.beta, settings.nll_weight)
    return model, train(model, objective, source, train_settings, folder, progress, tokenizer=tokenizer)


def within_epochs(settings: TrainSettings, pairs: int, max_epochs: float) -> TrainSettings:
    """The settings with `steps` cut so that no pair is seen more than `max_epochs` times on average.

    A round may yield a handful of pairs where hundreds were planned for; the same steps would teach them by heart.
    """
    most = max(1, math.ceil(max_epochs * pairs / max(1, settings.rows_per_step // 2)))
    if most >= settings.steps:
        return settings
    return replace(settings, steps=most, anneal_steps=min(settings.anneal_steps, most))


def train_reward(
    start: Llama,
    preferences: Sequence[Preference],
    settings: RewardSettings,
    tokenizer: Tokenizer,
    folder: Path,
    ledger: Ledger,
    progress: Progress,
) -> tuple[RewardModel, dict[str, Any]]:
    """A reward model on a copy of `start`, trained on every ranked pair but those of the held-out prompts.

    The report has the pairs and the accuracy on both sides of that split. Raises NoEffectError when all pairs are too
    long.
    """
    held: list[Comparison] = []
    learned: list[Comparison] = []
    for preference in preferences:
        side = held if chance(settings.train.seed, f"{preference.task_id}\0held") < settings.held_out else learned
        side += [(preference.prompt, better, worse) for better, worse in preference.ranked()]
    pairs = encode_pairs(learned, tokenizer, settings.train.seq_len, ledger)
    held_pairs = encode_pairs(held, tokenizer, settings.train.seq_len, ledger)
    if not pairs:
        raise NoEffectError(
            f"none of {len(learned)} preference pairs fits a row of {settings.train.seq_len} tokens",
            mend="raise reward.train.seq_len",
        )
    train_settings = within_epochs(settings.train, len(pairs), settings.max_epochs)
    model = RewardModel(copy.deepcopy(start))
    result = train(
        model,
        RewardObjective(),
        PairBatches(pairs, train_settings, pad=tokenizer.pad),
        train_settings,
        folder,
        progress,
    )
    budget = settings.train.microbatch_tokens or settings.train.batch_tokens
    report = training_report(result) | {
        "pairs": len(pairs),
        "held_out_pairs": len(held_pairs),
        "accuracy": result.metrics.get("accuracy"),
        "held_out_accuracy": _pair_accuracy(model, held_pairs, budget),
    }
    return model, report


def reward_scorer(
    model: RewardModel, tokenizer: Tokenizer, batch_tokens: int, progress: Progress | None = None
) -> Scorer:
    """A `Scorer` that encodes conversations and reads each one's score off its last token."""

    def scorer(conversations: Sequence[Sequence[Message]]) -> list[float]:
        rows = [encode_dialogue(tokenizer, messages).ids for messages in conversations]
        return score(model, rows, batch_tokens, progress)

    return scorer


def training_report(result: TrainResult) -> dict[str, Any]:
    """Steps, tokens, seconds, and the loss at both ends (means of the first and last tenth) of a training."""
    losses = result.losses
    tenth = max(1, len(losses) // 10)
    metrics: Mapping[str, float] = result.metrics
    return {
        "steps": len(losses),
        "tokens": result.tokens,
        "seconds": round(result.seconds, 2),
        "first_loss": sum(losses[:tenth]) / tenth,
        "last_loss": sum(losses[-tenth:]) / tenth,
        "metrics": {name: float(value) for name, value in metrics.items()},
    }


def _pair_accuracy(model: RewardModel, pairs: Sequence[EncodedPair], budget: int) -> float | None:
    """Share of pairs whose better reply scores higher; None without pairs."""
    if not pairs:
        return None
    scores = score(model, [side.ids for pair in pairs for side in pair.sides], budget)
    return sum(scores[place] > scores[place + 1] for place in range(0, len(scores), 2)) / len(pairs)
