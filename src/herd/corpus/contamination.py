"""One index of the benchmarks' 8-grams: what of a benchmark stands in a corpus, and which documents to keep out.

    index = ContaminationIndex.build([Example("gsm8k", "17", "Natalia sold clips to ..."), ...])
    index.save(path)                              # .npz
    seen = index.scan(texts)                      # bool [H]: which of its n-grams the texts have; `|` joins workers'
    index.coverage(seen)                          # float [examples]: the share of each one's tokens that was seen
    index.found_in(text)                          # the examples that one document has most of

Llama 3, section 5.1.4: an example is contaminated if a share T_D of its tokens lies in an 8-gram that occurs at least
once in the corpus. Tokens are units of `words.py`, so wrapping, letter case and punctuation do not hide a text. n-grams
that stand in many examples of one benchmark are its prompt's own words ("which of the following is"), and tell nothing:
from `common` examples on they are not counted; herd's choice.

Memory is bounded by the benchmarks: about 30 bytes for each of their tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from herd.corpus.arrays import kept_arrays
from herd.corpus.ngrams import joined_units
from herd.corpus.words import ngram_hashes, units
from herd.errors import InputError
from herd.files import atomic_file

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

N = 8  # tokens in a run; the paper's
COMMON = 20  # examples of one benchmark with the same run, from which on it is the prompt's
_FORMAT = 1
_SIEVE_BITS = 22  # most runs of a corpus are in no benchmark: a table of 4 MiB says so at once


@dataclass(frozen=True, slots=True)
class Example:
    """One item of a benchmark: its question, and the answer if that is to be kept out too."""

    benchmark: str
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """An example that a text has: `share` of its tokens."""

    benchmark: str
    id: str
    share: float


@dataclass(frozen=True, eq=False)
class ContaminationIndex:
    """`hashes` [H] sorted; of example e the tokens [e], and runs[starts[e]:starts[e + 1]], places in `hashes`.

    A run that is not counted has the place -1. Examples of fewer than `n` tokens have no run: `too_short`.
    """

    n: int
    hashes: U64
    runs: I64
    starts: I64
    tokens: I64
    benchmarks: Sequence[str]
    ids: Sequence[str]

    @staticmethod
    def build(examples: Iterable[Example], n: int = N, common: int = COMMON) -> ContaminationIndex:
        """Raises InputError when no example is long enough to have a run."""
        benchmarks, ids, parts, tokens = [], [], [], []
        for example in examples:
            hashes = units(example.text).hashes
            benchmarks.append(example.benchmark)
            ids.append(example.id)
            tokens.append(len(hashes))
            parts.append(ngram_hashes(hashes, n) if len(hashes) >= n else hashes[:0])
        counts = np.asarray([len(part) for part in parts], np.int64)
        if not counts.sum():
            raise InputError(
                f"no example of the benchmarks has {n} words: there is nothing to look for",
                mend="hand in the questions' texts; very short answers cannot be told from chance",
            )
        hashes, runs = np.unique(np.concatenate(parts), return_inverse=True)
        kept = ~_common(runs, np.repeat(np.arange(len(counts)), counts), benchmarks, len(hashes), common)
        places = np.where(kept, np.cumsum(kept) - 1, -1)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return ContaminationIndex(
            n, hashes[kept], places[runs].astype(np.int64), starts, np.asarray(tokens, np.int64), benchmarks, ids
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def too_short(self) -> Bools:
        """[examples]: of which nothing can be said."""
        return self.tokens < self.n

    def scan(self, texts: Iterable[str]) -> Bools:
        """Which of the index's n-grams stand in any of the texts, bool [H]; a run never crosses two texts."""
        seen = np.zeros(len(self.hashes), bool)
        for batch in joined_units(texts):
            hashes = ngram_hashes(batch.hashes, self.n)
            seen[self._places(hashes[batch.left[: len(hashes)] >= self.n])] = True
        return seen

    def coverage(self, seen: Bools) -> NDArray[np.float64]:
        """Of each example the share of its tokens that lie in a seen n-gram, [examples]; 0 for those too short."""
        return self._coverage(seen, np.arange(len(self)))

    def found_in(self, text: str, share: float = 0.5) -> list[Found]:
        """The examples of which `text` has at least `share` of the tokens, the most first."""
        hashes = units(text).hashes
        if len(hashes) < self.n:
            return []
        places = np.unique(self._places(ngram_hashes(hashes, self.n)))
        if not len(places):
            return []
        seen = np.zeros(len(self.hashes), bool)
        seen[places] = True
        candidates = np.unique(np.concatenate([self._owners(int(place)) for place in places]))
        shares = self._coverage(seen, candidates)
        found = [
            Found(self.benchmarks[example], self.ids[example], float(part))
            for example, part in zip(candidates.tolist(), shares, strict=True)
            if part >= share
        ]
        return sorted(found, key=lambda one: (-one.share, one.benchmark, one.id))

    def save(self, path: Path) -> None:
        with atomic_file(path) as handle:
            np.savez_compressed(
                handle,
                format=np.int64(_FORMAT),
                n=np.int64(self.n),
                hashes=self.hashes,
                runs=self.runs,
                starts=self.starts,
                tokens=self.tokens,
                benchmarks=np.asarray(self.benchmarks, dtype=np.str_),
                ids=np.asarray(self.ids, dtype=np.str_),
            )

    @staticmethod
    def load(path: Path) -> ContaminationIndex:
        """Raises ArtifactError for a file that is missing, cut short, or no such index."""
        with kept_arrays(path, "index of benchmarks", _FORMAT, "build it again from the benchmarks") as stored:
            n, benchmarks, ids = int(stored["n"]), stored["benchmarks"].tolist(), stored["ids"].tolist()
            hashes, runs, starts, tokens = (stored[name] for name in ("hashes", "runs", "starts", "tokens"))
            index = ContaminationIndex(n, hashes, runs, starts, tokens, benchmarks, ids)
            index.check()
        return index

    def check(self) -> None:
        """Raises ValueError where the parts do not fit together."""
        sizes = {len(self.starts) - 1, len(self.tokens), len(self.benchmarks), len(self.ids)}
        fits = len(sizes) == 1 and self.starts[0] == 0 and self.starts[-1] == len(self.runs) and self.n > 0
        fits = fits and bool((np.diff(self.starts) == np.maximum(self.tokens - self.n + 1, 0)).all())
        fits = fits and bool((np.diff(self.hashes.astype(np.uint64)) > 0).all() or len(self.hashes) < 2)
        if not fits or (len(self.runs) and not -1 <= self.runs.min() <= self.runs.max() < len(self.hashes)):
            raise ValueError("its parts do not fit together")

    @cached_property
    def _sieve(self) -> Bools:
        table = np.zeros(1 << _SIEVE_BITS, bool)
        table[self.hashes >> np.uint64(64 - _SIEVE_BITS)] = True
        return table

    @cached_property
    def _by_place(self) -> tuple[I64, I64]:
        """(examples in the order of the places of their runs, where each place begins [H + 1])."""
        owners = np.repeat(np.arange(len(self)), np.diff(self.starts))
        counted = self.runs >= 0
        order = np.argsort(self.runs[counted], kind="stable")
        begins = np.searchsorted(self.runs[counted][order], np.arange(len(self.hashes) + 1))
        return owners[counted][order], begins

    def _owners(self, place: int) -> I64:
        owners, begins = self._by_place
        return owners[begins[place] : begins[place + 1]]

    def _places(self, hashes: U64) -> I64:
        """Where those of the hashes that the index has stand in it."""
        hashes = hashes[self._sieve[hashes >> np.uint64(64 - _SIEVE_BITS)]]
        if not len(hashes) or not len(self.hashes):
            return np.empty(0, np.int64)
        places: I64 = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        found: I64 = places[self.hashes[places] == hashes]
        return found

    def _coverage(self, seen: Bools, examples: I64) -> NDArray[np.float64]:
        """A token is covered when one of the up to n runs that it stands in was seen."""
        shares = np.zeros(len(examples))
        known = np.append(seen, False)  # what is not counted, at -1
        for number, example in enumerate(examples.tolist()):
            hits = known[self.runs[self.starts[example] : self.starts[example + 1]]]
            if not hits.any():
                continue
            edges = np.zeros(int(self.tokens[example]) + 1, np.int64)
            edges[: len(hits)] += hits
            edges[self.n : self.n + len(hits)] -= hits
            shares[number] = np.count_nonzero(np.cumsum(edges)[:-1]) / self.tokens[example]
        return shares


def _common(runs: I64, owners: I64, benchmarks: Sequence[str], count: int, common: int) -> Bools:
    """[H]: which hashes stand in at least `common` examples of one benchmark."""
    found = np.zeros(count, bool)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(benchmarks))}
    of_example = np.asarray([numbers[name] for name in benchmarks], np.int64)
    pairs = np.unique(np.stack([runs, owners], 1), axis=0)  # an example counts once
    for number in numbers.values():
        mine = pairs[of_example[pairs[:, 1]] == number, 0]
        found |= np.bincount(mine, minlength=count) >= common
    return found


def examples_of(rows: Iterable[dict[str, object]], benchmark: str, fields: Sequence[str]) -> Iterator[Example]:
    """Examples out of a benchmark's records: the texts of `fields`, in their order, lists of texts too.

    An id is the record's own, or its number. Raises InputError for a record without any of the fields.
    """
    for number, row in enumerate(rows):
        texts = [text for name in fields for text in _texts(row.get(name))]
        if not texts:
            raise InputError(
                f"record {number} of {benchmark} has none of the fields {', '.join(fields)}",
                mend=f"its fields are: {', '.join(map(str, row))}",
            )
        yield Example(benchmark, str(row.get("id", number)), "\n".join(texts))


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []
