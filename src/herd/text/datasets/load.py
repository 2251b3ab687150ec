"""A whole dataset, recognised by its first row: `load_dialogues` for SFT, `load_pairs` for preferences,
`load_prompts` for a teacher to answer.

    data = load_dialogues(Path("train.parquet"))
    print(data.shown())          # 12,031 rows as 'alpaca': instruction, input, output; not used: id

One layout for all rows. A conversation whose last answer is empty teaches nothing; it is left out and counted. So is a
malformed row, as long as these are few (real datasets have some): more than one in a hundred is a FormatError with the
first one's place and the row itself. Damage (a line that is no JSON, a file cut short) is refused wherever it stands.
`columns` renames before anything is recognised. Records are kept in memory, at one and a half times the file's size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from herd.errors import FormatError, HerdError, InputError
from herd.text.datasets.layouts import DIALOGUES, PAIRS, PROMPTS, Layout
from herd.text.datasets.marks import foreign_marks
from herd.text.datasets.read import Row, read_rows, sample
from herd.text.datasets.refusals import advice
from herd.text.datasets.turns import Pair, other_keys
from herd.text.message import Message

T = TypeVar("T")
_MALFORMED = 100  # one malformed row in so many is left out; with more, the dataset is not what it seems


@dataclass(frozen=True)
class Dataset(Generic[T]):
    """Records with what was seen on the way: the layout's name, columns used and not, and why rows were left out."""

    records: list[T]
    layout: str
    used: tuple[str, ...]
    unused: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)  # marks of chat templates in texts -> rows that hold one

    def shown(self) -> str:
        """One line for a person."""
        total = len(self.records) + sum(self.left_out.values())
        line = f"{total:,} rows as '{self.layout}': {', '.join(self.used)}"
        if self.unused:
            line += f"; not used: {', '.join(self.unused)}"
        for reason, count in self.left_out.items():
            line += f"; {count:,} left out: {reason}"
        for mark, count in self.marks.items():
            line += f"; {count:,} rows hold {mark}, a mark of a chat template, which is learnt as plain text"
        return line


def load_dialogues(path: Path, columns: Mapping[str, str] | None = None) -> Dataset[list[Message]]:
    """Conversations with at least one assistant message each.

    Raises FormatError for a layout that is not known (with a sample row) and for a malformed row, InputError when no
    row is left.
    """
    return _load(path, columns or {}, DIALOGUES, "conversations", _untaught)


def load_prompts(path: Path, columns: Mapping[str, str] | None = None) -> Dataset[list[Message]]:
    """Conversations that wait for an answer: datasets of prompts, and dialogues without their last answer."""
    data = _load(path, columns or {}, PROMPTS, "prompts", _unasked)
    return replace(data, records=[_question(messages) for messages in data.records])


def _question(messages: list[Message]) -> list[Message]:
    return messages[:-1] if messages[-1].role == "assistant" else messages


def _unasked(messages: list[Message]) -> str:
    return "" if any(message.role == "user" for message in _question(messages)) else "no question of the user"


def load_pairs(path: Path, columns: Mapping[str, str] | None = None) -> Dataset[Pair]:
    """Preference pairs; raises as `load_dialogues` does."""
    return _load(path, columns or {}, PAIRS, "preference pairs", _undecided)


def _untaught(messages: list[Message]) -> str:
    answers = [message for message in messages if message.role == "assistant"]
    if not answers:
        return "no answer of the assistant"
    return "" if answers[-1].content.strip() or answers[-1].tool_calls else "an empty answer"


def _undecided(pair: Pair) -> str:
    sides = [(side.content.strip(), side.tool_calls) for side in (pair.chosen, pair.rejected)]
    if not all(content or calls for content, calls in sides):
        return "an empty answer"
    return "two equal answers" if sides[0] == sides[1] else ""


class _Noted(Row):
    """A row that remembers which of its columns were looked at."""

    def __init__(self, row: Row, looked: set[str]) -> None:
        super().__init__(row)
        self.looked = looked

    def get(self, column: str, default: Any = None) -> Any:
        self.looked.add(column)
        return super().get(column, default)

    def __getitem__(self, column: str) -> Any:
        self.looked.add(column)
        return super().__getitem__(column)


def _load(
    path: Path,
    columns: Mapping[str, str],
    layouts: Sequence[Layout[T]],
    what: str,
    fault: Callable[[T], str],
) -> Dataset[T]:
    layout: Layout[T] | None = None
    records: list[T] = []
    seen: dict[str, None] = {}
    looked: set[str] = set()
    left_out: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    malformed: list[FormatError] = []
    for place, raw in read_rows(Path(path)):
        row = _renamed(raw, columns, place)
        try:
            layout = layout or _recognise(row, layouts, what, place)
            record = _read(layout, row, place, looked)
        except FormatError as error:
            malformed.append(error)
            if layout is None and len(malformed) == _MALFORMED:
                break
            continue
        for name, value in row.items():
            if value is not None:
                seen[name] = None
                seen.update(dict.fromkeys(f"{name}[].{key}" for key in sorted(other_keys(value))))
        marks.update(foreign_marks(record))
        reason = fault(record)
        if reason:
            left_out[reason] += 1
        else:
            records.append(record)
    if len(malformed) * _MALFORMED > len(records):
        raise malformed[0]
    if malformed:
        left_out[f"malformed, the first at {malformed[0].where}"] = len(malformed)
    if layout is None or not records:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in left_out.items())
        raise InputError(f"no row can be used{': ' + reasons if reasons else ''}", where=str(path))
    used = tuple(name for name in seen if name in looked)
    unused = tuple(name for name in seen if name not in looked)
    return Dataset(records, layout.name, used, unused, dict(left_out), dict(marks))


def _renamed(row: Row, columns: Mapping[str, str], place: str) -> Row:
    """`columns` is ours -> theirs, e.g. {"prompt": "frage"}."""
    for ours, theirs in columns.items():
        if theirs not in row:
            raise InputError(f"there is no column '{theirs}' to read as '{ours}': {sample(row)}", where=place)
    return {**row, **{ours: row[theirs] for ours, theirs in columns.items()}} if columns else row


def _recognise(row: Row, layouts: Sequence[Layout[T]], what: str, place: str) -> Layout[T]:
    for layout in layouts:
        if layout.fits(row):
            return layout
    hint = f"{told}\n  else " if (told := advice(row, what)) else ""
    known = "\n    ".join(f"{layout.name}: {layout.example}" for layout in layouts)
    raise FormatError(
        f"the columns {', '.join(row)} are none of the known layouts of {what}\n  the row: {sample(row)}",
        where=place,
        mend=hint + f"rename with --columns OURS=THEIRS, or write rows of one of these:\n    {known}",
    )


def _read(layout: Layout[T], row: Row, place: str, looked: set[str]) -> T:
    try:
        if not layout.fits(row):
            raise FormatError(f"the columns {', '.join(row)} are not those of the rows before ('{layout.name}')")
        return layout.read(_Noted(row, looked))
    except HerdError as error:
        where = f"{place}, {error.where}" if error.where else place
        raise FormatError(f"{error.message}\n  the row: {sample(row)}", where=where, mend=error.mend) from error
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise FormatError(f"not a row of '{layout.name}': {error}\n  the row: {sample(row)}", where=place) from error
