"""One folder of shards that lies elsewhere: where its documents begin, and its tokens block by block.

What says where documents begin is fetched whole when the folder is opened; tokens when they are asked for, in blocks
whose checksums the writer noted. The cache goes by the hash of the tokens: the same shards at another address are not
fetched again, and others at the same address are never mistaken for these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herd.corpus.blocks import BlockCache, Bytes
from herd.corpus.remote import Remote
from herd.corpus.shards import Tokens, described, read_offsets
from herd.errors import ArtifactError, FormatError
from herd.files import atomic_file, sha256_of


@dataclass(frozen=True)
class Streamed:
    """A folder of shards elsewhere."""

    place: Remote
    cache: BlockCache = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False)
    offsets: NDArray[np.int64] = field(repr=False)
    checks: NDArray[np.uint32] = field(repr=False)
    kind: np.dtype[Any]

    @staticmethod
    def open(place: Remote, cache: BlockCache, facts: Mapping[str, Any]) -> Streamed:
        where = place.address("shards.json")
        kind, tokens, documents = described(facts, where)
        if "check_bytes" not in facts or "sha256_of" not in facts:
            raise ArtifactError(
                "these shards have no checksums of their parts, which a stream needs",
                where=where,
                mend="write them with this version of herd, or copy the folder here",
            )
        kept = cache.folder / _key(facts)
        for name, sha in facts["sha256_of"].items():
            _keep(place, name, kept / name, sha)
        offsets = read_offsets(kept / "documents.npy", documents, tokens)
        checks: NDArray[np.uint32] = np.load(kept / "checks.npy", allow_pickle=False)
        if len(checks) != -(-tokens * kind.itemsize // facts["check_bytes"]):
            raise ArtifactError(f"{len(checks):,} checksums do not fit {tokens:,} tokens", where=where)
        return Streamed(place, cache, facts, offsets, checks, kind)

    def document(self, index: int) -> Tokens:
        """The ids of one document; IndexError outside the documents."""
        if not 0 <= index < len(self.offsets) - 1:
            raise IndexError(f"document {index} of {len(self.offsets) - 1}")
        start, end = (int(self.offsets[at]) * self.kind.itemsize for at in (index, index + 1))
        size = int(self.facts["check_bytes"])
        parts = [
            self._block(number)[max(0, start - number * size) : end - number * size]
            for number in range(start // size, -(-end // size) if end > start else start // size)
        ]
        whole = parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty(0, np.uint8)])
        return np.frombuffer(whole.tobytes(), self.kind)

    def fetch(self, start: int, end: int) -> None:
        """Bring the blocks of tokens [start, end) into the cache."""
        size, width = int(self.facts["check_bytes"]), self.kind.itemsize
        for number in range(start * width // size, min(len(self.checks), -(-end * width // size))):
            if not self.cache.has((_key(self.facts), number)):
                self._block(number)

    def _block(self, number: int) -> Bytes:
        size = int(self.facts["check_bytes"])
        start = number * size
        end = min(start + size, int(self.offsets[-1]) * self.kind.itemsize)
        try:
            return self.cache.block(
                (_key(self.facts), number),
                end - start,
                int(self.checks[number]),
                lambda: self.place.range("tokens.bin", start, end),
            )
        except ArtifactError as error:
            if error.where:
                raise
            raise ArtifactError(
                f"{error.message}: bytes {start:,} to {end:,} are damaged, or the file was written again meanwhile",
                where=self.place.address("tokens.bin"),
                mend="put the shards there again as they were, or begin a new run with the new ones",
            ) from error


def parsed(data: bytes, where: str) -> Any:
    """JSON that came from elsewhere."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise FormatError(f"not valid JSON: {error}", where=where) from error


def _key(facts: Mapping[str, Any]) -> str:
    return str(facts["sha256"])[:32]


def _keep(place: Remote, name: str, path: Path, sha: str) -> None:
    """Fetch a whole small file into the cache, unless it is there as it was written."""
    if path.exists() and sha256_of(path) == sha:
        return
    data = place.read(name)
    if hashlib.sha256(data).hexdigest() != sha:
        raise ArtifactError(
            f"{name} is not the file that shards.json speaks of: damaged, or written again meanwhile",
            where=place.address(name),
            mend="put the shards there again as they were",
        )
    with atomic_file(path) as handle:
        handle.write(data)
