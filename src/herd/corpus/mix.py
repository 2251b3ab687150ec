"""Mixing: how much of each source a model sees, by tokens (Llama 3, section 3.1.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from herd.corpus.records import Document
from herd.errors import InputError, SettingError


@dataclass(frozen=True)
class SourceShare:
    """One source in a mix. `epochs` is tokens taken / tokens available: above 1 the source repeats."""

    source: str
    weight: float
    tokens_available: int
    tokens: int
    documents: int
    epochs: float


@dataclass(frozen=True)
class Mix:
    documents: list[Document]  # shuffled; a repeated document stands here several times, with the same id
    shares: list[SourceShare]


def mix(
    by_source: Mapping[str, Sequence[Document]],
    weights: Mapping[str, float],
    total_tokens: int,
    size: Callable[[Document], int],
    *,
    seed: int = 0,
) -> Mix:
    """Take from each source whole documents until it has its share, `weight / sum(weights) * total_tokens`.

    `size` counts a document's tokens. A source that is too small is read again (another epoch, another order), one
    that is large is cut. The choice and the order depend on the ids and the seed only. Sources without a weight and
    weights without documents are errors: a mix must say what it does with everything.
    """
    unknown, unused = set(weights) - set(by_source), set(by_source) - set(weights)
    if unknown or unused:
        raise SettingError(
            f"weights without documents: {sorted(unknown)}; documents without a weight: {sorted(unused)}",
            where="weights",
            mend="give each source one weight; 0 leaves it out",
        )
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise SettingError("weights must not be negative, and one of them above 0", where="weights")
    taken: list[tuple[bytes, Document]] = []
    shares = []
    for source in sorted(weights):
        target = round(weights[source] / total * total_tokens)
        chosen, share = _take(source, by_source[source], weights[source] / total, target, size, seed)
        taken += chosen
        shares.append(share)
    taken.sort(key=lambda pair: pair[0])
    return Mix([document for _, document in taken], shares)


def _take(
    source: str,
    documents: Sequence[Document],
    weight: float,
    target: int,
    size: Callable[[Document], int],
    seed: int,
) -> tuple[list[tuple[bytes, Document]], SourceShare]:
    """Documents of one source up to the target, with the keys of their place in the whole mix."""
    sizes = {document.id: size(document) for document in documents}
    available = sum(sizes.values())
    if target > 0 and available <= 0:
        raise InputError(f"the source '{source}' has no tokens, and its share is {target:,}", where=source)
    chosen: list[tuple[bytes, Document]] = []
    tokens = 0
    for epoch in count():
        if tokens >= target:
            break
        for document in sorted(documents, key=lambda one: _key(seed, epoch, "take", one.id)):
            if tokens >= target:
                break
            chosen.append((_key(seed, epoch, "order", f"{source}\0{document.id}"), document))
            tokens += sizes[document.id]
    epochs = tokens / available if available else 0.0
    return chosen, SourceShare(source, weight, available, tokens, len(chosen), round(epochs, 4))


def _key(seed: int, epoch: int, use: str, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{epoch}\0{use}\0{name}".encode("utf-8", "replace"), digest_size=16).digest()
