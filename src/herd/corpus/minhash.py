"""Near-duplicates: MinHash signatures, bands, and an exact look at each candidate pair.

A document is the set of its word shingles. Pairs that agree in one band of their signatures are candidates; the
Jaccard similarity of a candidate pair is then counted exactly, so the threshold means what it says (the bands only
cost recall, never precision). Documents linked by such pairs form a group, of which the longest stays.
Broder 1997; the use in Llama 3 is section 3.1.1, its parameters were not published.
On disk: 4 bytes for each distinct shingle and 12 for each band of a document.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from herd.corpus.records import Document
from herd.corpus.step import Found, Noted, Verdict, drop
from herd.corpus.words import mixed, ngram_hashes, units
from herd.progress import Progress

if TYPE_CHECKING:
    from herd.corpus.engine.notes import Notes

U32 = NDArray[np.uint32]

_BLOCK = 1 << 16  # shingles hashed at once: small enough for the second-level cache
_ALL_PAIRS_UP_TO = 24  # in a larger bucket each document meets the first and its nearest neighbours only
_NEIGHBOURS = 8
_WANTED_RECALL = 0.97


def bands_for(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows): the widest bands that still find a pair at the threshold with probability 0.97."""
    for rows in range(permutations, 1, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= _WANTED_RECALL:
            return bands, rows
    return permutations, 1


def shingles(text: str, size: int) -> U32:
    """The sorted distinct hashes of all runs of `size` words, uint32; composed and decomposed letters are one."""
    text = unicodedata.normalize("NFKC", text)
    found = np.sort((ngram_hashes(units(text).hashes, size) >> np.uint64(32)).astype(np.uint32))
    fresh = np.ones(len(found), np.bool_)  # np.unique does the same in ten times the time
    np.not_equal(found[1:], found[:-1], out=fresh[1:])
    return found[fresh]


def signatures(sets: Sequence[U32], permutations: int, seed: int = 1) -> U32:
    """MinHash signatures, uint32 [documents, permutations]; an empty set has the largest value everywhere.

    The permutations are multiplications by odd numbers modulo 2^32; the shingles are well mixed before.
    """
    factors = np.random.default_rng(seed).integers(0, 2**31, permutations, dtype=np.uint32) * np.uint32(2) + np.uint32(
        1
    )
    result = np.full((len(sets), permutations), 0xFFFFFFFF, dtype=np.uint32)
    for first, last in _blocks(sets):
        chosen = [index for index in range(first, last) if len(sets[index])]
        if not chosen:
            continue
        values = np.concatenate([sets[index] for index in chosen])
        starts = np.cumsum([0] + [len(sets[index]) for index in chosen[:-1]])
        for place, factor in enumerate(factors):
            result[chosen, place] = np.minimum.reduceat(values * factor, starts)
    return result


def _blocks(sets: Sequence[U32]) -> Iterator[tuple[int, int]]:
    first, held = 0, 0
    for index, values in enumerate(sets):
        held += len(values)
        if held >= _BLOCK:
            yield first, index + 1
            first, held = index + 1, 0
    if first < len(sets):
        yield first, len(sets)


def jaccard(left: U32, right: U32) -> float:
    """Similarity of two sorted distinct sets; two empty sets have 0."""
    if not len(left) or not len(right):
        return 0.0
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)


class Groups:
    """Connected components (union-find with path halving); a group's root is its smallest member.

    Holds those documents only that were joined: about 100 bytes for each.
    """

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}

    def root(self, index: int) -> int:
        parents = self._parents
        while (parent := parents.get(index, index)) != index:
            above = parents.get(parent, parent)
            parents[index] = above
            index = above
        return index

    def join(self, left: int, right: int) -> None:
        low, high = sorted((self.root(left), self.root(right)))
        self._parents.setdefault(low, low)
        self._parents[high] = low

    def members(self) -> Collection[int]:
        """Every document that was joined to another."""
        return self._parents.keys()


class NearDuplicates:
    """Of each group of near-duplicates the longest document stays, the first of equally long ones.

    A note is a band of a signature; beside the notes lie the shingles, which candidates are compared by.
    """

    name, edits = "near_duplicates", False

    def __init__(
        self,
        threshold: float = 0.70,
        shingle: int = 5,
        permutations: int = 112,
        *,
        trusted: Sequence[str] = (),
        trusted_threshold: float = 0.75,
    ) -> None:
        self._threshold, self._shingle, self._permutations = threshold, shingle, permutations
        self._trusted, self._trusted_threshold = frozenset(trusted), trusted_threshold

    def notes(self, documents: Sequence[Document], first: int) -> Noted:
        sets = [shingles(document.text, self._shingle) for document in documents]
        rows = np.arange(first, first + len(documents), dtype=np.uint32)
        filled = np.array([len(values) > 0 for values in sets], np.bool_)
        keys = band_keys(signatures(sets, self._permutations)[filled], *bands_for(self._threshold, self._permutations))
        facts: dict[str, NDArray[Any]] = {
            "row": rows,
            "size": np.array([len(values) for values in sets], np.int64),
            "length": np.array([len(document.text) for document in documents], np.int64),
            "trusted": np.array([document.source in self._trusted for document in documents], np.bool_),
        }
        return Noted(np.repeat(rows[filled], keys.shape[1]), keys.ravel(), {}, facts, sets)

    def decide(self, notes: Notes, progress: Progress) -> Found:
        groups = Groups()
        for done, table in enumerate(notes.buckets()):
            members = table["number"]
            runs = (members[low:high].tolist() for low, high in equal_runs(table["key"]))
            self._join(groups, runs, notes)
            progress.update(done, done + 1, "buckets of bands", {"in groups": len(groups.members())})
        found = keepers(groups, lambda number: int(notes.fact(number, "length")))
        dropped = sorted(number for number, keeper in found.items() if keeper != number)
        of = [found[number] for number in dropped]
        likeness = [jaccard(notes.set(left), notes.set(right)) for left, right in zip(dropped, of, strict=True)]
        return replace(
            Found.none(),
            dropped=np.array(dropped, np.int64),
            of=np.array(of, np.int64),
            value=np.array(likeness, np.float32),
        )

    def verdict(self, document: Document, of: str, value: Any, found: Found) -> Verdict:
        return drop("near_duplicate", f"{value:.2f} of {of}")

    def _join(self, groups: Groups, runs: Iterable[list[int]], notes: Notes) -> None:
        def near(left: int, right: int) -> bool:
            both = bool(notes.fact(left, "trusted")) and bool(notes.fact(right, "trusted"))
            least = max(self._threshold, self._trusted_threshold) if both else self._threshold
            return _reaches(notes.set(left), notes.set(right), least)

        join(groups, runs, near)


def band_keys(marks: U32, bands: int, rows: int) -> NDArray[np.uint64]:
    """The hash of each band of each signature, uint64 [documents, bands]; bands do not share hashes."""
    keys = np.empty((len(marks), bands), np.uint64)
    for band in range(bands):
        keys[:, band] = _row_hashes(marks[:, band * rows : (band + 1) * rows], band)
    return keys


def _row_hashes(values: U32, seed: int) -> NDArray[np.uint64]:
    """One hash a row."""
    combined = np.full(len(values), 0x9E3779B97F4A7C15 * (seed + 1) % 2**64, np.uint64)
    for column in values.T:
        combined = mixed(combined ^ column.astype(np.uint64))
    return combined


def equal_runs(key: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """[first, last) of every run of at least two equal values in a sorted array."""
    starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1]))) if len(key) else np.empty(0, np.int64)
    ends = np.append(starts[1:], len(key))
    many = ends - starts > 1
    yield from zip(starts[many].tolist(), ends[many].tolist(), strict=True)


def join(groups: Groups, runs: Iterable[list[int]], near: Callable[[int, int], bool]) -> None:
    """Join the pairs of each run of candidates that are near; pairs already in one group are not looked at."""
    for run in runs:
        for left, right in _pairs(run):
            if groups.root(left) != groups.root(right) and near(left, right):
                groups.join(left, right)


def duplicate_groups(sets: Sequence[U32], threshold: float, permutations: int) -> Groups:
    """Join every candidate pair of sets in memory whose exact similarity reaches the threshold."""
    groups = Groups()
    numbers = np.flatnonzero([len(values) > 0 for values in sets])
    if len(numbers):
        marks = signatures([values for values in sets if len(values)], permutations)
        keys = band_keys(marks, *bands_for(threshold, permutations))
        order = np.argsort(keys.ravel(), kind="stable")
        members = np.repeat(numbers, keys.shape[1])[order]
        runs = (members[low:high].tolist() for low, high in equal_runs(keys.ravel()[order]))
        join(groups, runs, lambda left, right: _reaches(sets[left], sets[right], threshold))
    return groups


def _reaches(left: U32, right: U32, least: float) -> bool:
    small, large = sorted((len(left), len(right)))
    return small >= least * large and jaccard(left, right) >= least


def _pairs(bucket: list[int]) -> Iterator[tuple[int, int]]:
    for place, right in enumerate(bucket):
        nearest = 0 if len(bucket) <= _ALL_PAIRS_UP_TO else max(0, place - _NEIGHBOURS)
        if nearest and place:
            yield bucket[0], right
        for left in bucket[nearest:place]:
            yield left, right


def keepers(groups: Groups, length: Callable[[int], int]) -> dict[int, int]:
    """For each document that is in a group the one of it that stays."""
    best: dict[int, tuple[int, int]] = {}
    roots = {number: groups.root(number) for number in sorted(groups.members())}
    for number, root in roots.items():
        best[root] = max(best.get(root, (-1, 0)), (length(number), -number))
    return {number: -best[root][1] for number, root in roots.items()}
