"""Token shards that lie elsewhere, read range by range: a stream gives the same documents as the folder on disk.

    cache = BlockCache(Path("~/.cache/herd").expanduser(), 16 << 30)
    store = open_shards("s3://bucket/web", cache)       # or hf://datasets/OWNER/NAME/web, https://..., or a folder
    store.section(0).document(17)

A place holds one folder of shards (`shards.json`), or a `manifest.json` that names many as one store: its sections.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from herd.corpus.blocks import BlockCache
from herd.corpus.remote import Remote, is_remote
from herd.corpus.shards import Shards, Tokens, described
from herd.corpus.streamed import Streamed, parsed
from herd.errors import ArtifactError, FormatError, HerdError
from herd.files import read_json, write_json

FORMAT = 1
_READERS = 4  # threads that read ahead
_OPEN = 3  # sections that are open at once: the one that is read, the next, and one before


class Section(Protocol):
    """Documents that are open: `Shards` of a disk, or `Streamed` ones."""

    @property
    def offsets(self) -> NDArray[np.int64]: ...

    def document(self, index: int) -> Tokens: ...


@dataclass
class ShardSet:
    """Folders of shards as one store, in the order of the manifest, each opened when it is first read."""

    facts: Sequence[Mapping[str, Any]]  # of each folder, its shards.json's or as much of it as a manifest holds
    folders: Sequence[Path | Remote]
    cache: BlockCache | None
    _opened: OrderedDict[int, Section] = field(default_factory=OrderedDict, repr=False)
    _opening: dict[int, threading.Lock] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _ahead: _Ahead | None = field(default=None, repr=False)

    @property
    def section_tokens(self) -> NDArray[np.int64]:
        """How many tokens each section has."""
        return np.asarray([int(facts["tokens"]) for facts in self.facts], np.int64)

    @property
    def n_tokens(self) -> int:
        return int(self.section_tokens.sum())

    @property
    def tokenizer(self) -> str:
        """The fingerprint of the tokenizer that made the ids."""
        return str(self.facts[0].get("tokenizer", ""))

    @property
    def fingerprint(self) -> str:
        """What is read, wherever it lies: a run that goes on compares it."""
        shas = [str(facts["sha256"]) for facts in self.facts]
        return hashlib.sha256(" ".join(shas).encode()).hexdigest()[:16]

    def section(self, index: int) -> Section:
        with self._lock:
            mine = self._opening.setdefault(index, threading.Lock())
        with mine:  # to open one may take a while: others stay at hand meanwhile
            opened = self._opened.get(index) or self._open(index)
        with self._lock:
            self._opened[index] = opened
            self._opened.move_to_end(index)
            while len(self._opened) > _OPEN:
                self._opened.popitem(last=False)
        return opened

    def expect(self, section: int, start: int, end: int) -> None:
        """Tokens [start, end) of a section are read soon: they are brought meanwhile, by threads of their own."""
        if isinstance(self.folders[section], Remote):
            self._ahead = self._ahead or _Ahead(self)
            self._ahead.ask(section, start, end)

    def _open(self, index: int) -> Section:
        folder = self.folders[index]
        if isinstance(folder, Path):
            opened: Section = Shards.open(folder)
            facts: Mapping[str, Any] = opened.facts  # type: ignore[attr-defined]
        else:
            assert self.cache is not None
            facts = _described(folder)
            opened = Streamed.open(folder, self.cache, facts)
        if facts["sha256"] != self.facts[index]["sha256"]:
            raise ArtifactError(
                "these are not the shards that the manifest names: they were written again since",
                where=str(folder) if isinstance(folder, Path) else folder.url,
                mend="write the manifest again, and begin a new run",
            )
        return opened


class _Ahead:
    """Threads that bring blocks into the cache. What fails here fails again, and is told, when it is read."""

    def __init__(self, store: ShardSet) -> None:
        self._store, self._wanted = store, queue.Queue[tuple[int, int, int]]()
        self._asked: set[tuple[int, int, int]] = set()
        for _ in range(_READERS):
            threading.Thread(target=self._work, daemon=True).start()

    def ask(self, section: int, start: int, end: int) -> None:
        if (section, start, end) in self._asked:
            return
        self._asked = {(section, start, end)} | (self._asked if len(self._asked) < 64 else set())
        step = max(1, (end - start) // (16 * _READERS))
        for at in range(start, end, step):
            self._wanted.put((section, at, min(at + step, end)))

    def _work(self) -> None:
        while True:
            section, start, end = self._wanted.get()
            try:
                opened = self._store.section(section)
                if isinstance(opened, Streamed):
                    opened.fetch(start, end)
            except HerdError:
                continue


def open_shards(place: str | Path, cache: BlockCache | None = None, **options: Any) -> ShardSet:
    """The shards at an address or in a folder. An address needs a cache; `options` are fsspec's for its protocol."""
    if is_remote(str(place)):
        assert cache is not None, "a stream needs a cache"
        at = Remote(str(place), options=options)
        manifest = at.read_if_there("manifest.json")
        if manifest is not None:
            where = at.address("manifest.json")
            facts = _sections(parsed(manifest, where), where)
            return ShardSet(facts, [at.within(str(one["at"])) for one in facts], cache)
        return ShardSet([_described(at)], [at], cache)
    folder = Path(place)
    if (folder / "manifest.json").exists():
        facts = _sections(read_json(folder / "manifest.json"), str(folder / "manifest.json"))
        folders = [Remote(str(one["at"])) if is_remote(str(one["at"])) else folder / str(one["at"]) for one in facts]
        return ShardSet(facts, folders, cache)
    return ShardSet([Shards.open(folder).facts], [folder], cache)


def write_manifest(folder: Path, names: Sequence[str]) -> None:
    """Make the shards in folder/NAME one store; they share a tokenizer. Written last, so the store is whole."""
    sections = [{"at": name, **_brief(Shards.open(folder / name).facts)} for name in names]
    _sections({"format": FORMAT, "sections": sections}, str(folder))
    write_json(folder / "manifest.json", {"format": FORMAT, "sections": sections})


def _brief(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in ("tokens", "documents", "tokenizer", "vocab_size", "sha256")}


def _described(place: Remote) -> Mapping[str, Any]:
    """The shards.json of a place, checked."""
    where = place.address("shards.json")
    facts: Mapping[str, Any] = parsed(place.read("shards.json"), where)
    described(facts, where)
    return facts


def _sections(manifest: Any, where: str) -> list[dict[str, Any]]:
    """The sections of a manifest, checked."""
    try:
        found = [{"at": str(one["at"]), **_brief(one)} for one in manifest["sections"]]
    except (KeyError, TypeError) as error:
        raise FormatError(f"not a manifest of shards: {error}", where=where) from error
    if not found or len({(one["tokenizer"], one["vocab_size"]) for one in found}) > 1:
        what = "its sections were made by several tokenizers" if found else "it names no section"
        raise FormatError(f"a manifest that cannot be one store: {what}", where=where)
    return found
