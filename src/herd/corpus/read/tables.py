"""Tables: Parquet by row group, and the Arrow files of Hugging Face datasets; a row is a document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from herd.corpus.read.places import opened
from herd.corpus.read.rows import from_row
from herd.corpus.read.unit import Part
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings

Read = Iterator[Document | Unreadable]
_ROWS = 1000  # held at once


def row_groups(path: str) -> list[tuple[int, int]]:
    """(first row, packed bytes) of each row group; empty for a file that is no Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened(path) as handle, pq.ParquetFile(handle) as table:
            groups, first = [], 0
            for number in range(table.metadata.num_row_groups):
                group = table.metadata.row_group(number)
                groups.append((first, group.total_byte_size))
                first += group.num_rows
            return groups
    except (pa.ArrowException, OSError):  # whoever reads it says so
        return []


def read_parquet(part: Part, settings: ReadSettings) -> Read:
    import pyarrow.parquet as pq

    def batches(handle: Any) -> Iterator[Any]:
        with pq.ParquetFile(handle) as table:
            yield table.schema_arrow.names
            groups = None if part.group < 0 else [part.group]
            yield from table.iter_batches(batch_size=_ROWS, row_groups=groups)

    return _read(part, settings, batches, "bad_parquet")


def read_arrow(part: Part, settings: ReadSettings) -> Read:
    """The data-00000-of-00012.arrow of a dataset that was saved to disk: a stream, or a file, of record batches."""
    import pyarrow as pa

    def batches(handle: Any) -> Iterator[Any]:
        try:
            reader = pa.ipc.open_stream(handle)
        except pa.ArrowInvalid:
            handle.seek(0)
            file = pa.ipc.open_file(handle)
            yield file.schema.names
            for number in range(file.num_record_batches):
                yield file.get_batch(number)
            return
        yield reader.schema.names
        yield from reader

    return _read(part, settings, batches, "bad_arrow")


def _read(part: Part, settings: ReadSettings, batches: Any, broken: str) -> Read:
    import pyarrow as pa

    number = part.start
    try:
        with opened(part.path) as handle:
            found = batches(handle)
            names = next(found)
            if not {settings.text_column, "html"} & set(names):
                detail = f"no column '{settings.text_column}'; it has: {', '.join(names)}"
                yield Unreadable(part.name, "", "no_text", detail)
                return
            for batch in found:
                for first in range(0, batch.num_rows, _ROWS):
                    for row in batch.slice(first, _ROWS).to_pylist():
                        yield from_row(row, part.name, f"row {number}", f"{part.name}:{number}", part.source, settings)
                        number += 1
    except PermissionError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Unreadable(part.name, f"after row {number}", broken, str(error).split("\n")[0])
