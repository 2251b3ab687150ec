"""What a training step is fed: `Batch`, one microbatch of rows, and `BatchSource`, where microbatches come from.

`Part` is one data-parallel rank's share of a step. It does not cover where rows come from (`packing.py`, `sources.py`,
`pairs.py`), nor how one row is shared between ranks (`parallel/context.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from herd.errors import SettingError

PAIR_WEIGHTS = "pair_weights_P"  # the extra of a batch whose rows 2i and 2i + 1 belong together (pairs.py)


@dataclass(frozen=True)
class Part:
    """Share `index` of `count` equal shares of a step: what one data-parallel rank reads.

    Shares differ by one thing at most; what a share lacks to `each` is filled up with things of weight 0, so that all
    ranks run the same forwards.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise SettingError(f"there is no part {self.index} of {self.count}", mend="parts count from 0")

    def of(self, things: int) -> range:
        """The places of this part among `things` in their order; the parts of all indices are all of them."""
        return range(self.index * things // self.count, (self.index + 1) * things // self.count)

    def each(self, things: int) -> int:
        """How many places every part has, filled up."""
        return -(-things // self.count)


WHOLE = Part(0, 1)


@dataclass(frozen=True)
class Batch:
    """One microbatch of B rows of T tokens.

    tokens_BT        int64 inputs
    targets_BT       int64, the token that should follow; anything where the weight is 0
    weights_BT       float32, how much each target counts; 0 for padding, prompts and document borders
    document_ids_BT  int64 or None; a token attends to earlier tokens of its own document. None: one document a row
    positions_BT     int64, counted from 0 in every document
    extras           what one objective needs beside these, e.g. DPO's reference log-probabilities. Names end in their
                     axes: _B... a row, _P a pair of rows, answer_N the places of answers. Those that end in "_host"
                     (a row each) decide which operations run and never leave main memory
    counted_N        int64, flat places of weight above 0, once they are known (`places`)
    """

    tokens_BT: Tensor
    targets_BT: Tensor
    weights_BT: Tensor
    document_ids_BT: Tensor | None
    positions_BT: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    counted_N: Tensor | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens that pass through the network, padding included."""
        return self.tokens_BT.numel()

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for `guards.save_batches`."""
        named = {"tokens_BT": self.tokens_BT, "targets_BT": self.targets_BT, "weights_BT": self.weights_BT}
        named["positions_BT"] = self.positions_BT
        if self.document_ids_BT is not None:
            named["document_ids_BT"] = self.document_ids_BT
        return named | {f"extras.{name}": tensor for name, tensor in self.extras.items()}

    def places(self) -> Tensor:
        """Flat places [N] whose targets count, in order."""
        return self.weights_BT.flatten().nonzero().squeeze(-1) if self.counted_N is None else self.counted_N

    def share(self, part: Part) -> Batch:
        """One part's rows, pairs whole, filled up with rows of weight 0: the same shape for every part."""
        if part.count == 1:
            return self
        paired = PAIR_WEIGHTS in self.extras
        per = 2 if paired else 1
        things = len(self.tokens_BT) // per
        mine = list(part.of(things))
        fill = part.each(things) - len(mine)
        picks_P = torch.tensor(mine + [mine[-1] if mine else 0] * fill)
        picks_B = (picks_P[:, None] * per + torch.arange(per)).flatten()
        weights_BT = self.weights_BT[picks_B]
        extras = {
            name: tensor[picks_P if name.endswith("_P") else picks_B]
            for name, tensor in self.extras.items()
            if name != "answer_N"
        }
        if paired:  # a pair of weight 0 has its tokens' weights: it is computed like any other
            extras[PAIR_WEIGHTS][len(mine) :] = 0
            extras["answer_N"] = (weights_BT + extras["stops_BT"]).flatten().nonzero().squeeze(-1)
        else:
            weights_BT[len(mine) :] = 0
        documents = self.document_ids_BT
        return Batch(
            tokens_BT=self.tokens_BT[picks_B],
            targets_BT=self.targets_BT[picks_B],
            weights_BT=weights_BT,
            document_ids_BT=None if documents is None else documents[picks_B],
            positions_BT=self.positions_BT[picks_B],
            extras=extras,
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`, by copies that the device need not be waited for.

        How many places count is found out before the move: a GPU would have to finish its work to tell.
        """
        device = torch.device(device)
        if self.tokens_BT.device == device:
            return self
        documents = self.document_ids_BT
        return replace(
            self,
            tokens_BT=_moved(self.tokens_BT, device),
            targets_BT=_moved(self.targets_BT, device),
            weights_BT=_moved(self.weights_BT, device),
            document_ids_BT=None if documents is None else _moved(documents, device),
            positions_BT=_moved(self.positions_BT, device),
            extras={n: t if n.endswith("_host") else _moved(t, device) for n, t in self.extras.items()},
            counted_N=_moved(self.places(), device),
        )


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and tensor.device.type == "cpu":  # only from pinned memory a copy runs beside the host
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class BatchSource(Protocol):
    """Where a run's batches come from. `batch` is a pure function: a resumed run asks for the step it stopped at.

    Its state is the step alone, so it depends on no number of ranks: 2 stop, 4 go on, with the same rows.
    """

    def batch(self, step: int, part: Part = WHOLE) -> list[Batch]:
        """The microbatches of optimiser step `step`, counted from 0, or one part's of them.

        All parts of a step have equally many microbatches of equal shapes; their rows together, without those of
        weight 0, are the step's.
        """
        ...
