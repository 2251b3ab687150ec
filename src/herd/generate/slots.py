"""The rows of one running batch: a dense cache, and for each row the request that it serves.

Rows are independent, so a finished row is given to the next request at once (continuous batching), and a batch that
nobody waits for is compacted. Equal prompts that enter together are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from herd.generate.extras import Extras, MakeDecoder
from herd.generate.protocol import Request, Step
from herd.generate.rows import FREE, Rows
from herd.generate.sampling import prompt_logprobs
from herd.llama.cache import KVCache
from herd.llama.model import Llama

PREFILL_TOKENS = 4_096  # in one forward pass: activations stay near the cache (16,384 take 30 % longer on a CPU)


class Slots:
    """`rows` requests in flight, each with room for `max_len` positions, prompt and continuation together.

    The cycle is `admit` (or `compact`), `step`, `advance`. Call it under `torch.inference_mode()`.
    """

    def __init__(self, model: Llama, rows: int, max_len: int, decoder: MakeDecoder | None = None) -> None:
        self._model, self._max_len, self._decoder = model, max_len, decoder
        weight = model.model.norm.weight  # never quantised, unlike the matrices
        self._device, self._dtype = weight.device, weight.dtype
        self._cache = self._new_cache(rows, max_len)
        self._hidden_BD = torch.zeros(rows, model.config.dim, dtype=self._dtype, device=self._device)
        self._rows = Rows(rows, max_len)

    @property
    def n_rows(self) -> int:
        return len(self._rows)

    @property
    def n_free(self) -> int:
        return len(self._rows.free)

    def admit(self, requests: Sequence[tuple[int, Request]]) -> None:
        """Put numbered requests into free rows and compute their prompts."""
        free = self._rows.free[: len(requests)].tolist()
        assert len(free) == len(requests), "more requests than free rows"
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        telling = set()
        for row, (number, request) in zip(free, requests, strict=True):
            limit = min(request.sampling.max_tokens, self._max_len - len(request.prompt))
            extras = Extras.of(request, self._model.config.vocab_size, self._decoder)
            self._rows.admit(row, number, request, limit, extras)
            by_prompt.setdefault(request.prompt, []).append(row)
            if request.sampling.prompt_logprobs:
                telling.add(row)
        self._prefill(by_prompt, telling)

    def step(self) -> Step:
        """Sample one token for each row in use; rows of requests that end are free afterwards."""
        return self._rows.step(self._model.logits(self._hidden_BD))

    def advance(self) -> None:
        """Run the model over the token that each row sampled last; free rows run along and mean nothing."""
        table = self._rows.table
        # the last token is not in the cache yet; free rows start over, so that they never run out of room
        lengths_B = np.maximum(table["prompt"] + table["new"] - 1, 0)
        self._cache.truncate(torch.from_numpy(lengths_B))
        tokens_B1 = torch.from_numpy(self._rows.last_B).to(self._device)[:, None]
        self._hidden_BD = self._model(tokens_B1, cache=self._cache)[:, 0]

    def compact(self) -> None:
        """Give the free rows back."""
        kept = np.flatnonzero(self._rows.table["owner"] != FREE)
        old, keep = self._cache, torch.from_numpy(kept).to(self._device)
        self._cache = self._new_cache(len(kept), self._max_len)
        _copy_rows(old, keep, self._cache, torch.arange(len(kept), device=self._device), old.longest)
        self._hidden_BD = self._hidden_BD[keep]
        self._rows.keep(kept)

    def _prefill(self, rows_by_prompt: dict[tuple[int, ...], list[int]], telling: set[int]) -> None:
        """Compute each prompt once, padded on the right with its like, and copy it into all rows that want it.

        The rows in `telling` are told the log-probabilities of their prompts.
        """
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
            self._tell(hidden_UTD, part, [[row for row in rows_by_prompt[p] if row in telling] for p in part])

    def _tell(self, hidden_UTD: Tensor, prompts: list[tuple[int, ...]], rows: Sequence[Sequence[int]]) -> None:
        for u, prompt in enumerate(prompts):
            if rows[u]:
                n_top = max(self._rows.n_top(row) for row in rows[u])
                found = prompt_logprobs(self._model.logits, hidden_UTD[u, : len(prompt) - 1], prompt[1:], n_top)
                for row in rows[u]:
                    self._rows.tell_prompt(row, *found)

    def _new_cache(self, rows: int, max_len: int) -> KVCache:
        return KVCache(self._model.config, rows, max_len, self._dtype, self._device)


def _copy_rows(source: KVCache, from_rows: Tensor, target: KVCache, to_rows: Tensor, length: int) -> None:
    """Copy the first `length` positions of some rows; what lies behind is never looked at."""
    pairs = (*zip(source.keys, target.keys, strict=True), *zip(source.values, target.values, strict=True))
    for old, new in pairs:
        new[to_rows, :, :length] = old[from_rows, :, :length]
