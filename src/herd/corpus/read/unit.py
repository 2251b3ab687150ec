"""Units of reading, done and done again as one: a file, a row group, a byte range, or small files together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A file, or a piece of one: bytes [start, end) or one row group of a table (`group`, its first row in `start`).

    `end` 0 and `group` -1 are the whole file. `kind` names the reader, `stamp` changes when the content does.
    """

    path: str
    name: str
    source: str
    kind: str
    size: int
    stamp: str = ""
    start: int = 0
    end: int = 0
    group: int = -1


@dataclass(frozen=True, slots=True)
class Unit:
    """Parts that one worker reads one after another."""

    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        first = self.parts[0]
        place = f"#{first.group}" if first.group >= 0 else f"@{first.start}" if first.end else ""
        more = f" and {len(self.parts) - 1} more" if len(self.parts) > 1 else ""
        return f"{first.name}{place}{more}"

    @property
    def size(self) -> int:
        """Bytes of the files, packed as they are."""
        return sum(part.size for part in self.parts)
