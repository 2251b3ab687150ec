"""The rows of one running batch: a dense cache, and for each row the request that it serves.

Rows are independent, so a finished row is given to the next request at once (continuous batching), and a batch that
nobody waits for is compacted. Equal prompts that enter together are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from herd.generate.protocol import Completion, Request
from herd.generate.sampling import sample, uniforms
from herd.llama.cache import KVCache
from herd.llama.model import Llama

PREFILL_TOKENS = 4_096  # in one forward pass: activations stay near the cache (16,384 take 30 % longer on a CPU)
_FREE = -1


@dataclass(frozen=True)
class Step:
    """What one step did: (request number, token, logprob) of every row in use, and the requests that ended."""

    sampled: list[tuple[int, int, float]]
    finished: list[tuple[int, Completion]]


class Slots:
    """`rows` requests in flight, each with room for `max_len` positions, prompt and continuation together.

    The cycle is `admit` (or `compact`), `step`, `advance`. Call it under `torch.inference_mode()`.
    """

    def __init__(self, model: Llama, rows: int, max_len: int, max_stops: int) -> None:
        self._model, self._max_len = model, max_len
        weight = model.model.embed_tokens.weight  # never quantised, unlike the matrices
        self._device, self._dtype = weight.device, weight.dtype
        self._cache = self._new_cache(rows, max_len)
        self._hidden_BD = torch.zeros(rows, weight.shape[1], dtype=self._dtype, device=self._device)
        self._rows = np.zeros(
            rows,
            dtype=[
                ("owner", np.int64),  # the number of the request; -1: free
                ("prompt", np.int64),  # its length
                ("new", np.int64),  # tokens sampled so far
                ("limit", np.int64),  # how many may be
                ("temperature", np.float32),
                ("top_p", np.float32),
                ("seed", np.uint64),
                ("stops", np.int64, (max(1, max_stops),)),
            ],
        )
        self._release(np.arange(rows))
        self._tokens_BT = np.zeros((rows, max_len), dtype=np.int64)
        self._logprobs_BT = np.zeros((rows, max_len), dtype=np.float32)

    @property
    def n_rows(self) -> int:
        return len(self._rows)

    @property
    def n_free(self) -> int:
        return int((self._rows["owner"] == _FREE).sum())

    def admit(self, requests: Sequence[tuple[int, Request]]) -> None:
        """Put numbered requests into free rows and compute their prompts."""
        free = np.flatnonzero(self._rows["owner"] == _FREE)[: len(requests)]
        assert len(free) == len(requests), "more requests than free rows"
        for row, (number, request) in zip(free, requests, strict=True):
            how, length = request.sampling, len(request.prompt)
            stops = np.full(self._rows["stops"].shape[1], _FREE)
            stops[: len(how.stop_ids)] = how.stop_ids
            limit = min(how.max_tokens, self._max_len - length)
            self._rows[row] = (number, length, 0, limit, how.temperature, how.top_p, how.seed % 2**64, stops)
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for row, (_, request) in zip(free.tolist(), requests, strict=True):
            by_prompt.setdefault(request.prompt, []).append(row)
        self._prefill(by_prompt)

    def step(self) -> Step:
        """Sample one token for each row in use; rows of requests that end are free afterwards."""
        rows = self._rows
        used = rows["owner"] != _FREE
        logits_BV = self._model.logits(self._hidden_BD)
        chance_B = uniforms(rows["seed"], rows["new"])
        picked_B, logprob_B = sample(logits_BV, rows["temperature"], rows["top_p"], chance_B)
        tokens_B, logprobs_B = picked_B.cpu().numpy(), logprob_B.cpu().numpy()
        every = np.arange(len(rows))
        self._tokens_BT[every, rows["new"]] = tokens_B
        self._logprobs_BT[every, rows["new"]] = logprobs_B
        rows["new"] += used
        stopped = (tokens_B[:, None] == rows["stops"]).any(axis=1)
        ended = np.flatnonzero(used & (stopped | (rows["new"] >= rows["limit"])))
        owners_B = rows["owner"]
        sampled = list(zip(owners_B[used].tolist(), tokens_B[used].tolist(), logprobs_B[used].tolist(), strict=True))
        finished = [(int(owners_B[row]), self._completion(int(row), bool(stopped[row]))) for row in ended]
        self._release(ended)
        return Step(sampled, finished)

    def advance(self) -> None:
        """Run the model over the token that each row sampled last; free rows run along and mean nothing."""
        rows = self._rows
        # the last token is not in the cache yet; free rows start over, so that they never run out of room
        lengths_B = np.maximum(rows["prompt"] + rows["new"] - 1, 0)
        last_B = self._tokens_BT[np.arange(len(rows)), np.maximum(rows["new"] - 1, 0)]
        self._cache.truncate(torch.from_numpy(lengths_B))
        tokens_B1 = torch.from_numpy(last_B).to(self._device)[:, None]
        self._hidden_BD = self._model(tokens_B1, cache=self._cache)[:, 0]

    def compact(self) -> None:
        """Give the free rows back."""
        kept = np.flatnonzero(self._rows["owner"] != _FREE)
        old, keep = self._cache, torch.from_numpy(kept).to(self._device)
        self._cache = self._new_cache(len(kept), self._max_len)
        _copy_rows(old, keep, self._cache, torch.arange(len(kept), device=self._device), old.longest)
        self._hidden_BD = self._hidden_BD[keep]
        self._rows = self._rows[kept]
        self._tokens_BT, self._logprobs_BT = self._tokens_BT[kept], self._logprobs_BT[kept]

    def _prefill(self, rows_by_prompt: dict[tuple[int, ...], list[int]]) -> None:
        """Compute each prompt once, padded on the right with its like, and copy it into all rows that want it."""
        prompts = sorted(rows_by_prompt, key=len, reverse=True)
        while prompts:
            longest = len(prompts[0])
            part = prompts[: max(1, PREFILL_TOKENS // longest)]
            prompts = prompts[len(part) :]
            padded_UT = np.zeros((len(part), longest), dtype=np.int64)
            for u, prompt in enumerate(part):
                padded_UT[u, : len(prompt)] = prompt
            cache = self._new_cache(len(part), longest)
            hidden_UTD = self._model(torch.from_numpy(padded_UT).to(self._device), cache=cache)
            source = [u for u, prompt in enumerate(part) for _ in rows_by_prompt[prompt]]
            target = [row for prompt in part for row in rows_by_prompt[prompt]]
            last = [len(part[u]) - 1 for u in source]
            self._hidden_BD[target] = hidden_UTD[source, last]
            from_rows, to_rows = (torch.tensor(rows, device=self._device) for rows in (source, target))
            _copy_rows(cache, from_rows, self._cache, to_rows, longest)

    def _completion(self, row: int, stopped: bool) -> Completion:
        n_new = self._rows["new"][row]
        tokens, logprobs = self._tokens_BT[row, :n_new], self._logprobs_BT[row, :n_new]
        return Completion(tuple(tokens.tolist()), tuple(logprobs.tolist()), "stop" if stopped else "length")

    def _release(self, rows: np.ndarray) -> None:
        self._rows[rows] = np.zeros((), dtype=self._rows.dtype)
        self._rows["owner"][rows] = _FREE
        self._rows["top_p"][rows] = 1.0
        self._rows["stops"][rows] = _FREE

    def _new_cache(self, rows: int, max_len: int) -> KVCache:
        return KVCache(self._model.config, rows, max_len, self._dtype, self._device)


def _copy_rows(source: KVCache, from_rows: Tensor, target: KVCache, to_rows: Tensor, length: int) -> None:
    """Copy the first `length` positions of some rows; what lies behind is never looked at."""
    pairs = (*zip(source.keys, target.keys, strict=True), *zip(source.values, target.values, strict=True))
    for old, new in pairs:
        new[to_rows, :, :length] = old[from_rows, :, :length]
