"""What changes a request's logits before the temperature: mask, bias and penalties, in that order.

The penalties are those of CTRL (Keskar et al. 2019: a positive logit is divided, a negative one multiplied) over prompt
and continuation, then OpenAI's presence and frequency penalties over the continuation: vLLM's order and transformers'.
One call changes all rows of a batch that need it; each row's logits depend on its own request only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herd.errors import InputError
from herd.generate.protocol import Constraint, Request, Sampling

Ids = NDArray[np.int64]
Numbers = NDArray[np.float32]


class Edits:
    """The changes of one request, which follow its continuation token by token (`advance`)."""

    def __init__(self, request: Request, vocab_size: int) -> None:
        how = request.sampling
        self.repetition, self.presence, self.frequency = (
            how.repetition_penalty,
            how.presence_penalty,
            how.frequency_penalty,
        )
        self.bias_ids = np.array([token for token, _ in how.logit_bias], dtype=np.int64)
        self.bias = np.array([by for _, by in how.logit_bias], dtype=np.float32)
        self._vocab_size = vocab_size
        self._counts: dict[int, int] = {}  # of every id seen: how often the continuation holds it
        self._penalised = _penalises(how)
        if self.repetition != 1:
            self._counts = dict.fromkeys(request.prompt, 0)
        self._constraint: Constraint | None = request.grammar.start() if request.grammar else None
        self.problem = ""  # why the grammar gave up
        self.mask = self._next_mask()
        if self.exhausted:
            raise InputError("the grammar allows no first token", where="grammar", mend="give one that allows some")

    @staticmethod
    def wanted(request: Request) -> bool:
        how = request.sampling
        return _penalises(how) or bool(how.logit_bias) or request.grammar is not None

    @property
    def exhausted(self) -> bool:
        """Whether nothing may come any more."""
        return self.mask is not None and not self.mask.any()

    def seen(self) -> tuple[Ids, Numbers]:
        """The ids that penalties apply to, and how often the continuation holds each."""
        ids = np.fromiter(self._counts, np.int64, len(self._counts))
        return ids, np.fromiter(self._counts.values(), np.float32, len(self._counts))

    def forced(self) -> Sequence[int]:
        """Ids that the grammar lets come next and no others."""
        return () if self._constraint is None else self._constraint.forced()

    def advance(self, token: int) -> None:
        """The continuation goes on with `token`."""
        if self._penalised:
            self._counts[token] = self._counts.get(token, 0) + 1
        if self._constraint is not None:
            try:
                self._constraint.advance(token)
                self.mask = self._next_mask()
            except InputError as error:  # one request's grammar is no reason to end the others of the batch
                self.problem, self.mask = error.message, np.zeros(self._vocab_size, dtype=np.bool_)

    def _next_mask(self) -> NDArray[np.bool_] | None:
        if self._constraint is None:
            return None
        mask = np.asarray(self._constraint.mask(), dtype=np.bool_)
        if mask.shape != (self._vocab_size,):
            raise InputError(
                f"the grammar's mask is {mask.shape}, and the vocabulary {self._vocab_size} ids",
                where="grammar",
                mend="make the grammar for this model's tokenizer, and pad its mask to the vocabulary",
            )
        return mask


def _penalises(how: Sampling) -> bool:
    return how.repetition_penalty != 1 or how.presence_penalty != 0 or how.frequency_penalty != 0


def apply_edits(logits_RV: Tensor, edits: Sequence[Edits]) -> None:
    """Change the logits of R rows in place, row r by `edits[r]`."""
    device = logits_RV.device
    masks = [(row, each.mask) for row, each in enumerate(edits) if each.mask is not None]
    if masks:
        rows = torch.tensor([row for row, _ in masks], device=device)
        allowed = torch.from_numpy(np.stack([mask for _, mask in masks])).to(device)
        logits_RV[rows] = logits_RV[rows].masked_fill_(~allowed, -torch.inf)
    rows, ids = _places([each.bias_ids for each in edits], device)
    if len(ids):
        logits_RV[rows, ids] += torch.from_numpy(np.concatenate([each.bias for each in edits])).to(device)
    seen = [each.seen() for each in edits]
    rows, ids = _places([seen_ids for seen_ids, _ in seen], device)
    if len(ids):
        counts = torch.from_numpy(np.concatenate([counts for _, counts in seen])).to(device)
        settings = np.array([(each.repetition, each.presence, each.frequency) for each in edits], dtype=np.float32)
        repetition, presence, frequency = torch.from_numpy(settings).to(device)[rows].unbind(1)
        old = logits_RV[rows, ids]
        new = torch.where(old > 0, old / repetition, old * repetition)
        logits_RV[rows, ids] = new - counts * frequency - (counts > 0) * presence


def _places(ids: Sequence[Ids], device: torch.device) -> tuple[Tensor, Tensor]:
    """The row and the id of every place, row by row."""
    rows = np.repeat(np.arange(len(ids)), [len(some) for some in ids])
    return torch.from_numpy(rows).to(device), torch.from_numpy(np.concatenate(ids)).to(device)
