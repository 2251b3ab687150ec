"""Token shards: flat token files that can be memory-mapped, which know each of their documents.

tokens.bin          the ids of all documents in order, little-endian uint16 (vocabulary up to 65,536) or uint32
documents.npy       int64 [documents + 1]: where each document begins, and the end
checks.npy          uint32, the CRC-32 of each `check_bytes` of tokens.bin: a range can be verified without the rest
lineage.jsonl.gz    {"id", "source", "lang"} of each document, in the same order
shards.json         sizes, counts by source and language, the tokenizer's fingerprint, sha256 of the files

Written and read here from a disk; `streams.py` reads the same folders from elsewhere, range by range.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from herd.errors import ArtifactError
from herd.files import read_json, read_jsonl, sha256_of, storage_errors, write_json, write_jsonl

Tokens = NDArray[np.uint16] | NDArray[np.uint32]
FORMAT = 1
CHECK_BYTES = 1 << 22  # what a stream reads at once: long enough for a network, short enough for a cache
_MEND = "make the shards again: delete the folder and run the same command"


def token_type(vocab_size: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class ShardWriter:
    """Write documents one after another; the folder is complete after `close()` (or the end of a `with` block).

        with ShardWriter(folder, tokenizer.vocab_size) as writer:
            writer.add(ids, id="a", source="web", lang="en")

    shards.json is written last, so a folder that was cut short cannot be opened.
    """

    def __init__(self, folder: Path, vocab_size: int, *, tokenizer: str = "", check_bytes: int = CHECK_BYTES) -> None:
        self._folder, self._vocab_size, self._tokenizer = Path(folder), vocab_size, tokenizer
        self._checks = _Checks(check_bytes)
        self._type = token_type(vocab_size)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "shards.json").unlink(missing_ok=True)
        self._file: IO[bytes] = open(self._folder / "tokens.bin", "wb")  # noqa: SIM115 closed by close()
        self._hash = hashlib.sha256()
        self._offsets = [0]
        self._lineage: list[dict[str, str]] = []
        self._counts: dict[str, Counter[str]] = {"source": Counter(), "lang": Counter()}

    def add(self, ids: Sequence[int] | Tokens, *, id: str, source: str, lang: str) -> None:
        """Append one document's token ids, each below the vocabulary's size."""
        values = np.asarray(ids, dtype=np.int64)
        assert not len(values) or (values.min() >= 0 and values.max() < self._vocab_size), (
            "an id outside the vocabulary"
        )
        data = values.astype(self._type).tobytes()
        with storage_errors(self._folder):
            self._file.write(data)
        self._hash.update(data)
        self._checks.update(data)
        self._offsets.append(self._offsets[-1] + len(values))
        self._lineage.append({"id": id, "source": source, "lang": lang})
        self._counts["source"][source] += len(values)
        self._counts["lang"][lang] += len(values)

    def close(self) -> None:
        with storage_errors(self._folder):
            self._file.close()
            np.save(self._folder / "documents.npy", np.array(self._offsets, dtype=np.int64))
            np.save(self._folder / "checks.npy", self._checks.found())
        write_jsonl(self._folder / "lineage.jsonl.gz", self._lineage)
        documents = {key: Counter(row[key] for row in self._lineage) for key in ("source", "lang")}
        facts: dict[str, Any] = {
            "format": FORMAT,
            "dtype": self._type.name,
            "vocab_size": self._vocab_size,
            "tokenizer": self._tokenizer,
            "tokens": self._offsets[-1],
            "documents": len(self._lineage),
            "sha256": self._hash.hexdigest(),
            "check_bytes": self._checks.size,
            "sha256_of": {name: sha256_of(self._folder / name) for name in ("documents.npy", "checks.npy")},
        }
        for key, tokens in self._counts.items():
            facts[f"by_{key}"] = {
                name: {"documents": documents[key][name], "tokens": tokens[name]} for name in sorted(tokens)
            }
        write_json(self._folder / "shards.json", facts)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(OSError):  # a full disk fails again here; the first error is the one to tell
                self._file.close()


class _Checks:
    """CRC-32 of every `size` bytes of what passes by."""

    def __init__(self, size: int) -> None:
        assert size > 0
        self.size, self._done, self._crc, self._held = size, list[int](), 0, 0

    def update(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            part = rest[: self.size - self._held]
            self._crc, self._held = zlib.crc32(part, self._crc), self._held + len(part)
            rest = rest[len(part) :]
            if self._held == self.size:
                self._done.append(self._crc)
                self._crc = self._held = 0

    def found(self) -> NDArray[np.uint32]:
        return np.asarray([*self._done, self._crc] if self._held else self._done, np.uint32)


@dataclass(frozen=True)
class Shards:
    """An opened folder of shards; `tokens` is memory-mapped and read-only."""

    folder: Path
    tokens: Tokens = field(repr=False)
    offsets: NDArray[np.int64] = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False)

    @staticmethod
    def open(folder: Path) -> Shards:
        """Open and check the sizes (not the hash: see `verify`). Raises ArtifactError that says what is missing."""
        folder = Path(folder)
        facts = read_json(folder / "shards.json")
        kind, tokens, documents = described(facts, str(folder / "shards.json"))
        _check_size(folder / "tokens.bin", tokens * kind.itemsize, f"{tokens:,} tokens")
        offsets = read_offsets(folder / "documents.npy", documents, tokens)
        _check_size(folder / "lineage.jsonl.gz", None, "the documents' lineage")
        data: Tokens = np.memmap(folder / "tokens.bin", dtype=kind, mode="r") if tokens else np.empty(0, dtype=kind)
        return Shards(folder, data, offsets, facts)

    @property
    def n_tokens(self) -> int:
        return int(self.offsets[-1])

    @property
    def n_documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def vocab_size(self) -> int:
        return int(self.facts["vocab_size"])

    def document(self, index: int) -> Tokens:
        """The ids of one document, a view into the file; IndexError outside 0 .. n_documents - 1."""
        if not 0 <= index < self.n_documents:
            raise IndexError(f"document {index} of {self.n_documents}")
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def lineage(self) -> list[dict[str, str]]:
        """{"id", "source", "lang"} of each document, in their order."""
        rows = list(read_jsonl(self.folder / "lineage.jsonl.gz"))
        if len(rows) != self.n_documents:
            raise ArtifactError(
                f"the lineage names {len(rows):,} of {self.n_documents:,} documents",
                where=str(self.folder / "lineage.jsonl.gz"),
                mend=_MEND,
            )
        return rows

    def verify(self) -> None:
        """Read everything and compare with the hash; ArtifactError when a bit has changed."""
        if sha256_of(self.folder / "tokens.bin") != self.facts["sha256"]:
            raise ArtifactError(
                "tokens.bin is damaged: its hash is not the one that was written",
                where=str(self.folder / "tokens.bin"),
                mend=_MEND,
            )
        self.lineage()


def described(facts: Mapping[str, Any], where: str) -> tuple[np.dtype[Any], int, int]:
    """Type of a token on disk, tokens, documents, out of a shards.json."""
    try:
        return np.dtype(facts["dtype"]).newbyteorder("<"), int(facts["tokens"]), int(facts["documents"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"not the description of shards: {error}", where=where, mend=_MEND) from error


def _check_size(path: Path, expected: int | None, what: str) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path.name} ({what}) is missing", where=str(path), mend=_MEND)
    size = path.stat().st_size
    if expected is not None and size != expected:
        state = "cut short" if size < expected else "too long"
        raise ArtifactError(
            f"{path.name} is {state}: {size:,} bytes, {what} are {expected:,}", where=str(path), mend=_MEND
        )


def read_offsets(path: Path, documents: int, tokens: int) -> NDArray[np.int64]:
    """Where documents begin, mapped and checked."""
    _check_size(path, None, "where documents begin")
    try:
        offsets: NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ArtifactError(f"documents.npy is cut short or damaged: {error}", where=str(path), mend=_MEND) from error
    fits = offsets.dtype == np.int64 and offsets.shape == (documents + 1,)
    if not fits or offsets[0] != 0 or offsets[-1] != tokens or (np.diff(offsets) < 0).any():
        raise ArtifactError(
            f"documents.npy does not fit: {documents:,} documents with {tokens:,} tokens are expected",
            where=str(path),
            mend=_MEND,
        )
    return offsets
