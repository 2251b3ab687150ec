"""Which tokens of a row are whose under context parallelism, and a batch cut to them. Tensors only, no processes.

A row of T tokens is cut into 2*CP chunks, and rank i holds chunks i and 2*CP-1-i: one early and one late, so that all
ranks meet equally many keys under the causal mask (paper, section 3.3.2). A row whose length the chunks do not divide
is padded on the right with tokens of weight 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from herd.errors import InputError
from herd.train.batch import Batch
from herd.train.objectives.terms import LossTerms, Objective

_PER_TOKEN = re.compile(r"_BT[a-z]*$")


def chunks_of(index: int, count: int, length: int) -> tuple[range, range]:
    """The places of a row of `length` tokens, a multiple of 2 * count, that rank `index` holds."""
    size = length // (2 * count)
    return range(index * size, (index + 1) * size), range(length - (index + 1) * size, length - index * size)


def padded_length(length: int, count: int, multiple: int = 1) -> int:
    """The shortest row of at least `length` tokens that the chunks divide."""
    step = 2 * count * multiple
    return -(-length // step) * step


def share_context(batch: Batch, index: int, count: int, multiple: int = 1) -> Batch:
    """A rank's part of a microbatch: its tokens of every row; `document_ids_BT` stay those of the whole rows.

    Extras named `..._BT` and `..._BTk` are cut like the tokens. Raises InputError for extras that name places of whole
    rows (`..._N`): such a batch goes whole into a model that gathers (`whole_rows`).
    """
    whole = padded_length(batch.tokens_BT.shape[1], count, multiple)
    chunks = chunks_of(index, count, whole)

    def own(values_BT: Tensor) -> Tensor:
        return part(padded(values_BT, whole), chunks)

    for name in batch.extras:
        if name.endswith("_N"):
            raise InputError("flat places of whole rows cannot be cut", where=f"extras.{name}")
    documents = batch.document_ids_BT
    return replace(
        batch,
        tokens_BT=own(batch.tokens_BT),
        targets_BT=own(batch.targets_BT),
        weights_BT=own(batch.weights_BT),
        document_ids_BT=None if documents is None else padded_documents(documents, whole),
        positions_BT=own(batch.positions_BT),
        extras={name: own(held) if _PER_TOKEN.search(name) else held for name, held in batch.extras.items()},
        counted_N=None,
    )


@dataclass(frozen=True)
class OneShare:
    """An objective whose terms all `count` ranks of a group compute alike: each counts its share of them."""

    objective: Objective
    count: int

    @property
    def name(self) -> str:
        return self.objective.name

    @property
    def unit(self) -> str:
        return self.objective.unit

    def terms(self, model: nn.Module, batch: Batch) -> LossTerms:
        terms = self.objective.terms(model, batch)
        metrics = {name: value / self.count for name, value in terms.metrics.items()}
        return LossTerms(terms.total / self.count, terms.count / self.count, metrics)


def part(values_BT: Tensor, chunks: Sequence[range]) -> Tensor:
    """The chunks of rows, one after the other."""
    return torch.cat([values_BT[:, chunk.start : chunk.stop] for chunk in chunks], 1)


def padded(values_BT: Tensor, length: int) -> Tensor:
    """Zeros behind the tokens: of weight 0, at position 0, and no earlier token looks at them."""
    more = length - values_BT.shape[1]
    return F.pad(values_BT, [0, 0] * (values_BT.ndim - 2) + [0, more]) if more else values_BT


def padded_documents(documents_BT: Tensor, length: int) -> Tensor:
    """The padding is a document of its own."""
    return F.pad(documents_BT, [0, length - documents_BT.shape[1]], value=-1)
