"""Rows of a dataset on disk: JSON lines (also .gz), a JSON list, Parquet, CSV and TSV with a line of names.

A folder is its files in order of name. Rows are read one at a time, except of a JSON list, which is read whole.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from herd.errors import ArtifactError, FormatError, InputError
from herd.files import read_json, read_jsonl

Row = dict[str, Any]
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv", ".tsv")
_MENDS = {
    ".zst": "unpack it (zstd -d), or write .jsonl.gz",
    ".gz": "of packed files .jsonl.gz is read; unpack this one",
    ".arrow": "write it as Parquet (datasets: Dataset.to_parquet)",
    ".txt": "running text is for pre-training: herd raise RECIPE --documents PATH",
    ".md": "running text is for pre-training: herd raise RECIPE --documents PATH",
}
_LONGEST_FIELD = 2**27  # of a CSV file; Python's own bound of 131,072 is less than a long answer


def files_of(path: Path) -> list[Path]:
    """The files of a dataset. Raises InputError where there is none that can be read."""
    if not path.exists():
        raise ArtifactError("no dataset is here", where=str(path), mend="name a file or a folder that exists")
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith(ENDINGS))
    if not found:
        raise InputError(f"no file here ends in {', '.join(ENDINGS)}", where=str(path))
    return found


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """(place, row) of every row. A row that is no object, and damage, is a FormatError that names the place."""
    for file in files_of(path):
        for number, row in enumerate(_rows(file), 1):
            place = f"{file}, row {number}"
            if not isinstance(row, dict):
                raise FormatError(f"a row is an object, not {type(row).__name__}: {sample(row)}", where=place)
            yield place, row


def _rows(file: Path) -> Iterator[Any]:
    name = file.name.lower()
    if name.endswith(".parquet"):
        yield from _parquet(file)
    elif name.endswith(".json"):
        yield from _json(file)
    elif name.endswith((".jsonl", ".jsonl.gz")):
        yield from read_jsonl(file)
    elif name.endswith((".csv", ".tsv")):
        yield from _table(file, "\t" if name.endswith(".tsv") else ",")
    else:
        mend = _MENDS.get(file.suffix.lower(), "write it as JSON lines or Parquet")
        raise InputError(
            f"no dataset is read from {file.name}: known are {', '.join(ENDINGS)}", where=str(file), mend=mend
        )


def _table(file: Path, separator: str) -> Iterator[Any]:
    """Rows of texts by the names in the first line."""
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with open(file, encoding="utf-8-sig", newline="") as handle:
            lines = csv.reader(handle, delimiter=separator, strict=True)
            names = next(lines, [])
            for fields in lines:
                if len(fields) != len(names) and fields:
                    what = f"line {lines.line_num} has {len(fields)} fields, the first line names {len(names)}"
                    raise FormatError(what, where=str(file), mend="quote fields that hold the separator or a line end")
                if fields:
                    yield dict(zip(names, fields, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"damaged, or not UTF-8: {error}", where=str(file)) from error


def _json(file: Path) -> Iterator[Any]:
    """A list of rows; JSON lines under a name that ends in .json are common, and are read too."""
    try:
        content = read_json(file)
    except FormatError:
        with open(file, "rb") as handle:
            first = handle.readline().strip()
        if not (first.startswith(b"{") and first.endswith(b"}")):
            raise
        yield from read_jsonl(file)
        return
    if isinstance(content, dict):  # {"data": [...]} and its kin: one list beside facts about it
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else [content]
    yield from content


def _parquet(file: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as handle:
            for batch in handle.iter_batches(batch_size=1024):
                yield from (_without_nulls(row) for row in batch.to_pylist())
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise FormatError(f"not a whole Parquet file: {error}", where=str(file)) from error


def _without_nulls(value: Any) -> Any:
    """Parquet gives every struct every key that any struct of the column has; those without a value are not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def sample(row: Any, limit: int = 600) -> str:
    """A row as one line for a person, long texts cut in the middle of nowhere but said to be."""
    text = json.dumps(_cut(row), ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[:limit] + f"... ({len(text):,} characters)"


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > 80:
        return value[:77] + "..."
    if isinstance(value, dict):
        return {str(key): _cut(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cut(item) for item in value[:3]] + ([f"... {len(value) - 3} more"] if len(value) > 3 else [])
    return value
