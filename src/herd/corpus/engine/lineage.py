"""From a URL, an id or a token of a shard back to the document, where it was read, and the verdicts it passed.

`finish` writes for each unit lineage/NNNNN.jsonl.gz, a line a document, and index/NNNNN.npy, the sorted hashes of all
ids and URLs in it: a search reads the index of each unit and opens only those that hold what is looked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herd.corpus.duplicates import hashes, same_page
from herd.corpus.engine.fates import ALIVE, Fate
from herd.corpus.engine.files import packed_lines
from herd.errors import ArtifactError, InputError

_PIECE = re.compile(r"#\d+$")  # of a long document that was cut for mixing
_MEND = "name a folder that `herd curate` has written"


@dataclass(frozen=True)
class Passed:
    """One document: where it was read, what it is called, the steps that changed it, and the one that dropped it."""

    file: str
    offset: str  # of an archive's record
    id: str
    url: str
    source: str
    lang: str
    edits: Sequence[tuple[str, str, str]]  # step, reason, detail
    dropped: tuple[str, str, str] | None


def line_of(fate: Fate, names: Sequence[str]) -> dict[str, Any]:
    """A document's line of the lineage."""
    document = fate.document
    row: dict[str, Any] = {"id": document.id, "file": fate.file, "source": document.source, "lang": document.lang}
    if "offset" in document.meta:  # inside an archive
        row["offset"] = document.meta["offset"]
    if document.url:
        row["url"] = document.url
    if fate.edits:
        row["edits"] = [[names[one.step], one.reason, one.detail] for one in fate.edits]
    if fate.dropped != ALIVE:
        row["dropped"] = [names[fate.dropped], fate.reason, fate.detail]
    return row


def keys_of(lines: Sequence[dict[str, Any]]) -> NDArray[np.uint64]:
    """The sorted hashes of the ids and URLs."""
    words = [row["id"] for row in lines] + [same_page(row["url"]) for row in lines if "url" in row]
    return np.unique(hashes([word.encode("utf-8", "replace") for word in words])[0])


def find(out: Path, wanted: str) -> Iterator[Passed]:
    """Every document with this URL (as `same_page` compares) or this id; ArtifactError where nothing was curated."""
    paths = sorted((out / "index").glob("*.npy"))
    if not paths:
        raise ArtifactError("there is no curation here", where=str(out), mend=_MEND)
    page = same_page(wanted)
    keys = hashes([wanted.encode("utf-8", "replace"), page.encode("utf-8", "replace")])[0]
    for path in paths:
        index = np.load(path, allow_pickle=False)
        at = np.minimum(np.searchsorted(index, keys), max(0, len(index) - 1))
        if not len(index) or not (index[at] == keys).any():
            continue
        for line in packed_lines(out / "lineage" / f"{path.stem}.jsonl.gz"):
            row = json.loads(line)
            if row["id"] == wanted or (row.get("url") and same_page(row["url"]) == page):
                yield _passed(row)


def trace(out: Path, document: str) -> Passed:
    """The document with this id, or the one that it is a piece of."""
    for name in dict.fromkeys((document, _PIECE.sub("", document))):
        found = next((one for one in find(out, name) if one.id == name), None)
        if found:
            return found
    raise InputError(f"the curation has no document '{document}'", where=str(out), mend=_MEND)


def _passed(row: dict[str, Any]) -> Passed:
    edits = [(str(step), str(reason), str(detail)) for step, reason, detail in row.get("edits", ())]
    dropped = row.get("dropped")
    return Passed(
        row["file"],
        row.get("offset", ""),
        row["id"],
        row.get("url", ""),
        row["source"],
        row["lang"],
        edits,
        tuple(dropped) if dropped else None,
    )
