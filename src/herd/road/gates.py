"""The two gates of a long-context stage (paper, section 3.4.2): short-context scores have recovered, and a needle is
found at every depth of a row as long as the stage's.

    found = needles(generator, tokenizer, haystack, length=131_072, depths=10)

A needle is one sentence with a number, put into held-out text; the row ends with the beginning of the same sentence,
and the model finds the needle if it goes on with the number. Base models answer it: nothing is asked in dialogue.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from herd.corpus.shards import Shards
from herd.errors import TrainingError
from herd.files import read_json, write_json
from herd.generate import Generator, Request, Sampling
from herd.progress import Progress
from herd.text import Tokenizer
from herd.train.phases import ContextGates

ANSWER = 16  # tokens that a number may take
PLACES = (
    "lighthouse",
    "old mill",
    "north gate",
    "harbour office",
    "stone bridge",
    "glass house",
    "hill farm",
    "west quay",
)


@dataclass(frozen=True)
class Verdict:
    """What was seen after so many `steps` of a stage."""

    steps: int
    short_loss: float  # held out, nats per token, in rows of short_context
    before: float  # the same before the first long-context stage
    found: tuple[bool, ...]  # by depth
    passed: bool
    needed: int = 0  # needles that had to be found

    @staticmethod
    def of(gates: ContextGates, steps: int, short_loss: float, before: float, found: Sequence[bool]) -> Verdict:
        recovered, needed = short_loss <= before * (1 + gates.tolerance), math.ceil(gates.found * len(found) - 1e-9)
        return Verdict(steps, short_loss, before, tuple(found), recovered and sum(found) >= needed, needed)

    def told(self) -> str:
        lost = ", ".join(
            f"{depth / max(1, len(self.found) - 1):.0%}" for depth, hit in enumerate(self.found) if not hit
        )
        return (
            f"short-context loss {self.short_loss:.4f} (before {self.before:.4f}), "
            f"{sum(self.found)} of {len(self.found)} needles found, {self.needed or 'none'} needed"
            + (f"; lost at depth {lost}" if lost else "")
        )

    def metrics(self) -> dict[str, float]:
        return {"short_context_loss": self.short_loss, "needles_found": sum(self.found) / len(self.found)}


class GateLog:
    """The verdicts on one stage, on disk, so that a killed stage goes on with as many steps as it was granted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.verdicts = [
            Verdict(**{**one, "found": tuple(one["found"])}) for one in (read_json(path) if path.exists() else [])
        ]

    @property
    def passed(self) -> bool:
        return bool(self.verdicts) and self.verdicts[-1].passed

    @property
    def prolongations(self) -> int:
        """How often the stage was prolonged."""
        return sum(not verdict.passed for verdict in self.verdicts)

    def add(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        write_json(self._path, self.plain())

    def plain(self) -> list[Mapping[str, Any]]:
        return [asdict(verdict) for verdict in self.verdicts]

    def decide(self, gates: ContextGates, seq_len: int, verdict: Verdict, progress: Progress) -> bool:
        """Note a verdict; whether the stage is done. TrainingError when it may not be prolonged any more."""
        if not verdict.passed and len(self.verdicts) >= gates.times:
            raise TrainingError(
                f"the model does not hold {seq_len:,} tokens after {verdict.steps:,} steps and"
                f" {gates.times} prolongations: {verdict.told()}",
                where="gates",
                mend="give the stage more steps, raise gates.times or gates.more_steps, or ask for less"
                " (gates.tolerance, gates.found)",
            )
        self.add(verdict)
        more = "" if verdict.passed else f"; the stage goes on for {gates.more_steps:,} steps"
        progress.note(f"gates at {seq_len:,} tokens: {verdict.told()}{more}")
        return verdict.passed


def needles(
    generator: Generator, tokenizer: Tokenizer, haystack: Sequence[int], length: int, depths: int, seed: int = 0
) -> list[bool]:
    """Whether a needle at each depth, from the row's beginning to its end, is found in a row of `length` tokens.

    `haystack` are ids of ordinary text; it is gone around when it is too short.
    """
    rng, requests, numbers = random.Random(seed), [], []
    for depth in range(depths):
        place, number = rng.choice(PLACES), str(rng.randrange(10_000, 100_000))
        open_ids = tokenizer.encode(f"\nThe secret number of the {place} is")
        needle = [*open_ids, *tokenizer.encode(f" {number}.\n")]
        room = length - 1 - len(needle) - len(open_ids) - ANSWER
        hay = [haystack[at % len(haystack)] for at in range(max(0, room))]
        at = round(len(hay) * depth / max(1, depths - 1))
        prompt = (tokenizer.bos, *hay[:at], *needle, *hay[at:], *open_ids)
        stops = tuple(tokenizer.stop_ids)
        requests.append(Request(prompt, Sampling(temperature=0.0, max_tokens=ANSWER, stop_ids=stops)))
        numbers.append(number)
    answers = generator.generate(requests)
    said = [tokenizer.decode(answer.tokens, skip_special=True).strip() for answer in answers]
    return [text.startswith(number) for text, number in zip(said, numbers, strict=True)]


def haystack(validation: Path, tokens: int) -> list[int]:
    """Ids of held-out documents, without the marks at their ends, `tokens` of them if there are as many."""
    store, found = Shards.open(validation), list[int]()
    for index in range(store.n_documents):
        found += store.document(index)[1:-1].tolist()
        if len(found) >= tokens:
            break
    return found[:tokens]
