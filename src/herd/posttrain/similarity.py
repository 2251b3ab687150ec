"""How alike two texts are: cosine of hashed character n-grams, for many texts at once.

For near-duplicate answers, pairs that hardly differ, and the greedy semantic deduplication of a round's dialogues.
Characters instead of words, because Thai has none; hashing into a fixed width, because then thousands of texts are
compared by one matrix product. It sees wording, not meaning: a sentence encoder can take its place by producing the
same kind of matrix (one unit-length row a text).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, well-mixed bits: Knuth's multiplicative hashing
WIDTH = 2048  # a dialogue has a few hundred n-grams; at this width few of them collide
NGRAM = 4


def normalise(text: str) -> str:
    """The form in which texts are compared: NFC, case folded, white space squeezed."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _buckets(text: str, width: int, n: int) -> npt.NDArray[np.int64]:
    """The hash bucket of each n-gram of code points; a text shorter than n is one n-gram of blanks and itself."""
    codes = np.frombuffer(text.rjust(n).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    hashed = np.zeros(len(codes) - n + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(n):
            hashed = hashed * _BASE + codes[offset : len(codes) - n + 1 + offset]
        hashed *= _BASE
    return ((hashed >> np.uint64(32)) % np.uint64(width)).astype(np.int64)


def ngram_counts(texts: Sequence[str], *, width: int = WIDTH, n: int = NGRAM) -> Rows:
    """Counts of hashed character n-grams, one row of `width` floats a text. Texts are normalised here."""
    counts = np.zeros((len(texts), width), dtype=np.float32)
    for row, text in zip(counts, texts, strict=True):
        row += np.bincount(_buckets(normalise(text), width, n), minlength=width)
    return counts


def unit_rows(counts: Rows, *, rare_counts_more: bool = False) -> Rows:
    """Rows of length one, so that a product of two is their cosine.

    `rare_counts_more` weighs each n-gram by log(1 + texts / texts that have it): among prompts of one kind the shared
    phrasing then weighs little, and the names and numbers in which they differ weigh much.
    """
    rows = np.sqrt(counts)  # a loop of one phrase must not hide the rest of the text
    if rare_counts_more and len(rows):
        holders = np.maximum(np.count_nonzero(counts, axis=0), 1)
        rows *= np.log1p(len(rows) / holders).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Rows = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


def similarity(first: str, second: str) -> float:
    """Cosine of the two texts' n-gram counts: 1.0 for equal texts, 0.0 for nothing in common."""
    if normalise(first) == normalise(second):
        return 1.0
    rows = unit_rows(ngram_counts([first, second]))
    return float(rows[0] @ rows[1])


def greedy_distinct(rows: Rows, order: Sequence[int], threshold: float) -> list[int | None]:
    """Walk the unit rows in `order` and keep each whose cosine with every row kept so far is below `threshold`.

    Returns one entry a row: None when it was kept, otherwise the index of the kept row it is too close to.
    """
    blocked_by: list[int | None] = [None] * len(rows)
    kept = np.empty((len(rows), rows.shape[1] if rows.ndim == 2 else 0), dtype=np.float32)
    kept_index: list[int] = []
    block = 256  # similarities of a block to all kept rows come from one product; inside the block, row by row
    for start in range(0, len(order), block):
        members = list(order[start : start + block])
        known = len(kept_index)
        against_known = rows[members] @ kept[:known].T
        for place, member in enumerate(members):
            cosines = np.concatenate([against_known[place], kept[known : len(kept_index)] @ rows[member]])
            if len(cosines) and (nearest := int(np.argmax(cosines))) >= 0 and cosines[nearest] >= threshold:
                blocked_by[member] = kept_index[nearest]
            else:
                kept[len(kept_index)] = rows[member]
                kept_index.append(member)
    return blocked_by
