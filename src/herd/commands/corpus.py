"""`herd corpus why` and `herd corpus trace`: from a page or a token to what was decided about its document."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from herd.errors import InputError, SettingError

if TYPE_CHECKING:
    from herd.corpus.engine.lineage import Passed


def why(page: str, curated: str) -> int:
    """`herd corpus why URL`; InputError when nothing of this name was read."""
    from herd.corpus.engine.lineage import find

    found = list(find(Path(curated), page))
    if not found:
        raise InputError(
            f"no document with this URL or id was read: {page}",
            where=curated,
            mend="see unreadable/ for what was no document, and the sources for what was never asked for",
        )
    print("\n\n".join(map(_told, found)))
    return 0


def trace(place: str, curated: str) -> int:
    """`herd corpus trace SHARD:POSITION`."""
    import numpy as np

    from herd.corpus.engine.lineage import trace as trace_document
    from herd.corpus.shards import Shards

    folder, _, position = place.rpartition(":")
    if not folder or not position.isdecimal():
        raise SettingError(f"'{place}' is no place in shards", where="trace", mend="write FOLDER:POSITION")
    shards = Shards.open(Path(folder))
    if int(position) >= shards.n_tokens:
        raise InputError(f"these shards have {shards.n_tokens:,} tokens", where=place, mend="name an earlier one")
    number = int(np.searchsorted(shards.offsets, int(position), side="right")) - 1
    row = shards.lineage()[number]
    begin, end = (int(one) for one in shards.offsets[number : number + 2])
    print(f"token {int(position):,} is number {int(position) - begin:,} of {end - begin:,} of document {number:,}")
    where = Path(curated) if curated else _curation_of(Path(folder))
    if where is None:
        print(f"document {row['id']}, source {row['source']}, language {row['lang']}")
        print("its curation is not known here: name its folder with --curated")
        return 0
    print(_told(trace_document(where, row["id"])))
    return 0


def _curation_of(shards: Path) -> Path | None:
    """The stage `corpus` that a run's shards were made from, which stands beside theirs."""
    from herd.files import read_json

    for folder in (shards.resolve(), shards.resolve().parent):
        if (folder / "herd.json").is_file():
            name = read_json(folder / "herd.json").get("inputs", {}).get("corpus")
            found = folder.parent / str(name)
            return found if name and (found / "index").is_dir() else None
    return None


def _told(one: Passed) -> str:
    lines = [f"document {one.id}, source {one.source}, language {one.lang or 'not known'}"]
    if one.url:
        lines.append(f"  from {one.url}")
    lines.append(f"  read from {one.file}" + (f" at byte {one.offset}" if one.offset else ""))
    lines += [f"  changed by {step}: {_reason(reason, detail)}" for step, reason, detail in one.edits]
    if one.dropped:
        step, reason, detail = one.dropped
        lines.append(f"  REMOVED by {step}: {_reason(reason, detail)}")
    else:
        lines.append("  kept")
    return "\n".join(lines)


def _reason(reason: str, detail: str) -> str:
    return f"{reason} ({detail})" if detail else reason
