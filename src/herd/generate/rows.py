"""The sampling half of a running batch: for each row its request, what it has said so far, and when it ends.

Nothing here knows a model or a cache: logits come in, tokens and finished completions come out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herd.generate.edits import apply_edits
from herd.generate.extras import Extras
from herd.generate.protocol import Alternatives, Completion, Request, Sampled, Step
from herd.generate.sampling import Chances, alternatives, sample, uniforms

FREE = -1
Indices = NDArray[np.int64]


class Rows:
    """`count` requests at most, each with at most `most_new` tokens."""

    def __init__(self, count: int, most_new: int) -> None:
        fields = [
            ("owner", np.int64),  # the number of the request; -1: free
            ("prompt", np.int64),  # its length
            ("new", np.int64),  # tokens sampled so far
            ("limit", np.int64),  # how many may be
            ("temperature", np.float32),
            ("top_p", np.float32),
            ("top_k", np.int64),
            ("min_p", np.float32),
            ("seed", np.uint64),
            ("cached", np.int64),  # ids of the prompt that were not computed for it
        ]
        self.table = np.zeros(count, dtype=np.dtype(fields, align=True))  # aligned: torch reads the columns in place
        self._stops_BS = np.full((count, 1), FREE)  # wider where a request has more stop ids
        self._extras: dict[int, Extras] = {}  # of the rows whose request asks for more than the table holds
        self._tokens_BT = np.zeros((count, most_new), dtype=np.int64)
        self._logprobs_BT = np.zeros((count, most_new), dtype=np.float32)
        self.release(np.arange(count))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def free(self) -> Indices:
        return np.flatnonzero(self.table["owner"] == FREE)

    @property
    def last_B(self) -> Indices:
        """The token that each row sampled last; rubbish for rows that have none."""
        last: Indices = self._tokens_BT[np.arange(len(self)), np.maximum(self.table["new"] - 1, 0)]
        return last

    def admit(
        self, row: int, number: int, request: Request, limit: int, extras: Extras | None = None, cached: int = 0
    ) -> None:
        """Give a free row to a request that may get `limit` tokens, and found `cached` of its prompt computed."""
        how = request.sampling
        missing = len(how.stop_ids) - self._stops_BS.shape[1]
        if missing > 0:
            self._stops_BS = np.pad(self._stops_BS, ((0, 0), (0, missing)), constant_values=FREE)
        self._stops_BS[row, : len(how.stop_ids)] = how.stop_ids
        settings = (how.temperature, how.top_p, how.top_k, how.min_p, how.seed % 2**64, cached)
        self.table[row] = (number, len(request.prompt), 0, limit, *settings)
        if extras is not None:
            self._extras[row] = extras

    def n_top(self, row: int) -> int:
        """How many alternatives a row asks for."""
        return self._extras[row].n_top if row in self._extras else 0

    def tell_prompt(self, row: int, logprobs: Sequence[float], top: Sequence[Alternatives]) -> None:
        """The log-probabilities of a row's prompt, or of its next part."""
        self._extras[row].tell_prompt(logprobs, top)

    def step(self, logits_BV: Tensor, at: Indices | None = None) -> Step:
        """Sample one token for each row in use, of all or of those in `at`; rows of requests that end are free then."""
        at = np.arange(len(self)) if at is None else at
        rows = self.table[at]
        used = rows["owner"] != FREE
        extras = self._with_extras(at)
        picked_B, logprob_B = sample(logits_BV, _chances(rows), _edited(logits_BV, extras))
        tokens_B, logprobs_B = picked_B.cpu().numpy(), logprob_B.cpu().numpy()
        self._tokens_BT[at, rows["new"]] = tokens_B
        self._logprobs_BT[at, rows["new"]] = logprobs_B
        rows["new"] += used
        self.table["new"][at] = rows["new"]
        stopped = (tokens_B[:, None] == self._stops_BS[at]).any(axis=1)
        tops: dict[int, Alternatives] = {}
        if extras:
            tops = _tell_alternatives(logits_BV, extras)
            for i, extra in extras:
                stopped[i] |= extra.push(int(tokens_B[i]), bool(stopped[i]))
        ended = np.flatnonzero(used & (stopped | (rows["new"] >= rows["limit"])))
        owners_B = rows["owner"]
        told = [tops.get(i, ()) for i in np.flatnonzero(used).tolist()]
        each = zip(owners_B[used].tolist(), tokens_B[used].tolist(), logprobs_B[used].tolist(), told, strict=True)
        sampled = [Sampled(*one) for one in each]
        finished = [(int(owners_B[i]), self._completion(int(at[i]), bool(stopped[i]))) for i in ended]
        self.release(at[ended])
        return Step(sampled, finished)

    def keep(self, rows: Indices) -> None:
        """Keep only these rows, in their order."""
        self._extras = {new: self._extras[row] for new, row in enumerate(rows.tolist()) if row in self._extras}
        self.table, self._stops_BS, self._tokens_BT = self.table[rows], self._stops_BS[rows], self._tokens_BT[rows]
        self._logprobs_BT = self._logprobs_BT[rows]

    def release(self, rows: Indices) -> None:
        """Free these rows."""
        self.table[rows] = np.zeros((), dtype=self.table.dtype)
        self.table["owner"][rows] = FREE
        self.table["top_p"][rows] = 1.0
        self._stops_BS[rows] = FREE
        for row in rows.tolist() if self._extras else ():
            self._extras.pop(row, None)

    def _with_extras(self, at: Indices) -> list[tuple[int, Extras]]:
        rows = at.tolist() if self._extras else ()
        return [(i, self._extras[row]) for i, row in enumerate(rows) if row in self._extras]

    def _completion(self, row: int, stopped: bool) -> Completion:
        n_new = self.table["new"][row]
        tokens, logprobs = self._tokens_BT[row, :n_new].tolist(), self._logprobs_BT[row, :n_new].tolist()
        more = self._extras[row].completion_fields() if row in self._extras else {}
        cached, whole = int(self.table["cached"][row]), stopped and not more.get("problem")
        return Completion(tuple(tokens), tuple(logprobs), "stop" if whole else "length", cached=cached, **more)


def _chances(rows: NDArray[np.void]) -> Chances:
    top_k_B, min_p_B = rows["top_k"], rows["min_p"]
    return Chances(
        rows["temperature"],
        rows["top_p"],
        uniforms(rows["seed"], rows["new"]),
        top_k_B if top_k_B.any() else None,
        min_p_B if min_p_B.any() else None,
    )


def _edited(logits_BV: Tensor, extras: Sequence[tuple[int, Extras]]) -> tuple[Tensor, Tensor] | None:
    """The rows whose logits a request changes, and their changed logits."""
    edits = [(i, extra.edits) for i, extra in extras if extra.edits is not None]
    if not edits:
        return None
    rows_R = torch.tensor([i for i, _ in edits], device=logits_BV.device)
    logits_RV = logits_BV[rows_R]
    apply_edits(logits_RV, [edit for _, edit in edits])
    return rows_R, logits_RV


def _tell_alternatives(logits_BV: Tensor, extras: Sequence[tuple[int, Extras]]) -> dict[int, Alternatives]:
    """Tell the rows that want alternatives theirs; the same by the row of the logits."""
    wanting = [(i, extra) for i, extra in extras if extra.n_top]
    if not wanting:
        return {}
    most = max(extra.n_top for _, extra in wanting)
    rows = torch.tensor([i for i, _ in wanting], device=logits_BV.device)
    tops = {}
    for (i, extra), found in zip(wanting, alternatives(logits_BV[rows], most), strict=True):
        tops[i] = found[: extra.n_top]
        extra.top.append(tops[i])
    return tops
