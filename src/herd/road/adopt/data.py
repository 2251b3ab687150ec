"""The dataset of a fine-tuning as ids: what is learnt and what is held out, with every row left out counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from herd.errors import HerdError, InputError
from herd.posttrain.adoption import Adoption
from herd.posttrain.select import chance
from herd.road.adopt.compact import Compact
from herd.text import Tokenizer
from herd.text.chat import Dialogue, encode_dialogue, encode_prompt
from herd.text.datasets import Dataset, Pair, load_dialogues, load_pairs
from herd.text.message import Message
from herd.text.show import check_trained
from herd.train.pairs import Preference
from herd.train.settings import TrainSettings

T = TypeVar("T")
U = TypeVar("U")
_REFUSED = 100  # one row in so many may be impossible to write; with more the dataset does not suit the model
_FEW, _ENOUGH = 30, 60  # updates: with fewer little is learnt at the usual rates; what a smaller batch would make


@dataclass(frozen=True)
class Split(Generic[T]):
    """Items to learn and items to measure on, the latter maybe none; `notes` say how the dataset was read."""

    learnt: list[T]
    held: list[T]
    notes: list[str]


@dataclass(frozen=True)
class _Encoded(Generic[T]):
    """One row: its ids, how many there are, and what it asks first, by which rows of one prompt stay together."""

    item: T
    length: int
    asked: str


def dialogues_of(adoption: Adoption, path: Path, tokenizer: Tokenizer) -> Split[Compact]:
    """Conversations of a dataset, encoded.

    Raises InputError when none fits a row, FormatError for unknown layouts, NoEffectError for a conversation that would
    teach nothing, or not to stop.
    """
    data = load_dialogues(path, adoption.columns)

    def encoded(messages: list[Message]) -> _Encoded[Compact]:
        dialogue = encode_dialogue(tokenizer, messages)
        check_trained(tokenizer, dialogue)
        if adoption.answers == "last":
            dialogue = last_answer(dialogue)
        return _Encoded(Compact.of(dialogue), len(dialogue.ids), _asked(messages))

    return _split(data, encoded, adoption, path)


def pairs_of(adoption: Adoption, path: Path, tokenizer: Tokenizer) -> Split[Preference]:
    """Preference pairs of a dataset, encoded; raises as `dialogues_of` does."""
    data = load_pairs(path, adoption.columns)

    def encoded(pair: Pair) -> _Encoded[Preference]:
        sides = [encode_dialogue(tokenizer, (*pair.prompt, reply)) for reply in (pair.chosen, pair.rejected)]
        for side in sides:
            check_trained(tokenizer, side)
        chosen, rejected = (Compact.of(side) for side in sides)
        preference = Preference(chosen, rejected, len(encode_prompt(tokenizer, pair.prompt)))
        return _Encoded(preference, preference.longest, _asked(pair.prompt))

    return _split(data, encoded, adoption, path)


def last_answer(dialogue: Dialogue) -> Dialogue:
    """The same with nothing trained but the last stretch that was: an answer and its end."""
    end = max(t for t, on in enumerate(dialogue.trained) if on) + 1
    start = max((t for t, on in enumerate(dialogue.trained[:end]) if not on), default=-1) + 1
    return replace(dialogue, trained=[start <= t < end for t in range(len(dialogue.ids))])


def _asked(messages: Iterable[Message]) -> str:
    """The first words of the user: the same in every thread of a tree, and in every pair of a prompt."""
    return next((message.content for message in messages if message.role == "user"), "")


def _split(data: Dataset[T], encode: Callable[[T], _Encoded[U]], adoption: Adoption, path: Path) -> Split[U]:
    """Held out by hash of what is asked: no prompt is on both sides, and more data moves nothing across."""
    length, seed = adoption.train.seq_len, adoption.train.seed
    sides: tuple[list[U], list[U]] = [], []
    shortest, fitting, longer, refused = math.inf, list[tuple[U, str]](), 0, list[HerdError]()
    for record in data.records:
        try:
            row = encode(record)
        except HerdError as error:  # what the model's chat format cannot write
            refused.append(error)
            continue
        shortest = min(shortest, row.length)
        if row.length <= length:
            fitting.append((row.item, row.asked))
        else:
            longer += 1
    if len(refused) * _REFUSED > len(data.records):
        raise refused[0]
    if not fitting:
        what = f"no row fits {length:,} tokens: the shortest has {shortest:,}"
        raise InputError(what, where=str(path), mend="raise train.seq_len")
    for item, asked in fitting:
        sides[chance(seed, f"held {asked}") < adoption.held_out].append(item)
    learnt, held = sides
    if not learnt:
        raise InputError("every row is held out", where=str(path), mend="lower held_out, or give more data")
    notes = [data.shown()]
    if longer:
        notes.append(
            f"{longer:,} of {len(data.records):,} rows left out: longer than {length:,} tokens (train.seq_len)"
        )
    if refused:
        notes.append(
            f"{len(refused):,} rows left out that the chat format cannot write; the first: {refused[0].message}"
        )
    if adoption.held_out and not held:
        notes.append("no row is held out: nothing measures what is learnt (held_out)")
    return Split(learnt, held, notes)


def within_epochs(adoption: Adoption, items: int, per_step: int) -> TrainSettings:
    """The training settings with steps cut to `max_epochs` over `items`, and a warm-up of at most a tenth of them."""
    settings = adoption.train
    steps = min(settings.steps, max(1, math.ceil(adoption.max_epochs * items / per_step)))
    return replace(
        settings,
        steps=steps,
        anneal_steps=min(settings.anneal_steps, steps),
        warmup_steps=min(settings.warmup_steps, max(1, steps // 10)),
    )


def few_steps(settings: TrainSettings) -> str:
    """A sentence when a small dataset leaves a handful of updates, with the setting that makes more; else ""."""
    least = settings.seq_len
    if settings.steps >= _FEW or settings.batch_tokens <= least:
        return ""
    batch = max(least, settings.batch_tokens * settings.steps // _ENOUGH // least * least)
    more = settings.steps * settings.batch_tokens // batch
    return (
        f"only {settings.steps} steps: --set train.batch_tokens={batch} "
        f"--set train.microbatch_tokens={min(batch, settings.microbatch_tokens or batch)} makes about {more}"
    )
