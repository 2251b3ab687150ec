"""One curation as a value that a worker can be sent: where documents come from, the steps, where everything lies."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from herd.config import to_plain
from herd.corpus.read import Unit, read_part, units
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import CurateSettings, ReadSettings
from herd.corpus.step import CorpusStep, ManyStep, Step
from herd.files import read_json

if TYPE_CHECKING:
    AnyStep = Step | ManyStep | CorpusStep

_VERSION = 1  # of what the passes write: a change of it makes every unit again


class Source(Protocol):
    """Documents in units that can be read again, each with a stamp that changes with its content."""

    def __len__(self) -> int: ...

    def read(self, unit: int) -> Iterator[tuple[str, Document | Unreadable]]:
        """Each with the name of the file that it is from."""

    def stamp(self, unit: int) -> str: ...

    def name(self, unit: int) -> str: ...

    def size(self, unit: int) -> int:
        """Of the work, in any unit of measure: progress is told by it."""


@dataclass(frozen=True)
class Held:
    """Documents in memory, as one unit. They have no stamp that would outlast the process."""

    documents: Sequence[Document | Unreadable]
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __len__(self) -> int:
        return 1

    def read(self, unit: int) -> Iterator[tuple[str, Document | Unreadable]]:
        yield from ((self.name(unit), one) for one in self.documents)

    def stamp(self, unit: int) -> str:
        return self.token

    def name(self, unit: int) -> str:
        return "documents in memory"

    def size(self, unit: int) -> int:
        return len(self.documents)


@dataclass(frozen=True)
class Places:
    """Files in folders and behind addresses, and what among them cannot be read."""

    units: tuple[Unit, ...]
    aside: tuple[Unreadable, ...]
    settings: ReadSettings

    @staticmethod
    def of(sources: Sequence[str | Path], settings: ReadSettings | None = None) -> Places:
        settings = settings or ReadSettings()
        found = [units(source, settings) for source in sources]
        return Places(
            tuple(unit for some, _ in found for unit in some),
            tuple(one for _, aside in found for one in aside),
            settings,
        )

    def __len__(self) -> int:
        return len(self.units)

    def read(self, unit: int) -> Iterator[tuple[str, Document | Unreadable]]:
        if unit == 0:
            yield from ((one.file, one) for one in self.aside)
        for part in self.units[unit].parts:
            yield from ((part.name, one) for one in read_part(part, self.settings))

    def stamp(self, unit: int) -> str:
        parts = [asdict(part) for part in self.units[unit].parts]
        aside = [one.row() for one in self.aside] if unit == 0 else []
        return _hash([parts, aside, to_plain(self.settings)])

    def name(self, unit: int) -> str:
        return self.units[unit].name

    def size(self, unit: int) -> int:
        return self.units[unit].size


@dataclass(frozen=True)
class Job:
    """`work` holds what lies between the passes; `memory` is what decisions may take in bytes (see Notes)."""

    source: Source
    settings: CurateSettings
    out: Path
    work: Path
    extra_steps: tuple[AnyStep, ...] = ()
    memory: int = 1 << 30

    @cached_property
    def steps(self) -> list[AnyStep]:
        from herd.corpus.pipeline import build_steps

        return [*build_steps(self.settings), *self.extra_steps]

    @cached_property
    def rounds(self) -> list[tuple[int, int]]:
        from herd.corpus.engine.passes import rounds

        return rounds(self.steps)

    def deciding(self, round_: int) -> list[int]:
        """The places of the round's steps that must see the whole corpus."""
        return [place for place in range(*self.rounds[round_]) if isinstance(self.steps[place], CorpusStep)]

    def label(self, place: int) -> str:
        """What a step's files are called: a step may stand in the list twice."""
        return f"{place:02d}-{self.steps[place].name}"

    def unit_folder(self, round_: int, unit: int) -> Path:
        return self.work / f"round-{round_}" / f"{unit:05d}"

    def segments(self, round_: int, unit: int) -> list[Path]:
        folder = self.unit_folder(round_, unit)
        return [folder / f"{number:05d}" for number in range(len(read_json(folder / "done.json")["documents"]))]

    def is_done(self, folder: Path, round_: int, unit: int) -> bool:
        done = folder / "done.json"
        return done.is_file() and read_json(done)["made"] == self.fingerprint(round_, unit)

    def fingerprint(self, round_: int, unit: int) -> str:
        """What a unit's result depends on: its own content in the first round, everybody's after a decision."""
        return _hash([self._made_by, self.source.stamp(unit) if round_ == 0 else self.whole, round_])

    @cached_property
    def whole(self) -> str:
        return _hash([self._made_by, *(self.source.stamp(unit) for unit in range(len(self.source)))])

    @cached_property
    def _made_by(self) -> list[Any]:
        from herd import __version__

        extra = [[type(step).__qualname__, repr(sorted(vars(step).items()))] for step in self.extra_steps]
        return [_VERSION, __version__, to_plain(self.settings), extra]

    def shipped(self) -> Job:
        """Without what a worker makes for itself."""
        return replace(self)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]
