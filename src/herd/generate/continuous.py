"""Continuous batching over pages: requests come and go while others run, a step at a time. What a server runs.

    batch = Continuous(model, cache_tokens=65_536)
    number = batch.submit(request)
    while batch.busy:
        step = batch.step()          # step.sampled: Sampled(number, token, ...); step.finished: (number, Completion)

One step is one pass over the tokens that the scheduler chose. Not thread-safe: who serves many callers takes turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from herd.devices import memory_errors
from herd.generate.extras import Extras, MakeDecoder
from herd.generate.paged import with_pages
from herd.generate.paged_cache import PagedCache
from herd.generate.pages import Pages
from herd.generate.protocol import Request, Step
from herd.generate.rows import Rows
from herd.generate.sampling import prompt_logprobs
from herd.generate.scheduler import Chunk, Plan, Scheduler
from herd.generate.settings import SchedulerSettings
from herd.generate.work import Work
from herd.llama.model import Llama

PAGE = 16  # positions: what is shared is shared in steps of this
_LESS = "give the engine fewer cache_tokens, or a smaller token_budget"


@dataclass(eq=False)
class _Active:
    """A request that was submitted; its row once it is computed."""

    request: Request
    limit: int
    extras: Extras | None
    row: int = -1


class Continuous:
    """Requests in flight over one model and one cache of `cache_tokens` positions."""

    def __init__(
        self,
        model: Llama,
        *,
        cache_tokens: int,
        settings: SchedulerSettings | None = None,
        decoder: MakeDecoder | None = None,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        settings = settings or SchedulerSettings()
        weight = model.model.norm.weight  # never quantised, unlike the matrices
        pool = Pages(max(1, cache_tokens // PAGE), PAGE)
        self.scheduler = Scheduler(pool, settings)
        with memory_errors(_LESS):
            self._cache = PagedCache(model.config, pool.count, PAGE, weight.dtype, weight.device, cache_dtype)
        self._config, self._decoder = model.config, decoder
        self._model = with_pages(model, self._cache)
        self._rows = Rows(settings.max_running, model.config.max_seq_len)
        self._active: dict[int, _Active] = {}
        self._next = 0

    @property
    def busy(self) -> bool:
        return self.scheduler.busy

    def has(self, number: int) -> bool:
        """Whether a request runs or waits. One that a failed step ended does not."""
        return number in self._active

    def bytes_of(self, request: Request) -> int:
        """Bytes of keys and values that a request can come to need; beginnings shared with others count here too."""
        pages = self.scheduler.pages_of(len(request.prompt), self._limit(request))
        return pages * self._cache.page_bytes

    def submit(self, request: Request, *, priority: int = 0) -> int:
        """Queue a request; its number. Lower priorities go first.

        Raises BusyError when the queue is full, InputError for what the cache can never hold or a grammar that does
        not fit the vocabulary. The prompt is the caller's to check.
        """
        number, limit = self._next, self._limit(request)
        extras = Extras.of(request, self._config.vocab_size, self._decoder)
        share = not request.sampling.prompt_logprobs  # those need every position computed
        self.scheduler.submit(number, request.prompt, limit, priority=priority, share=share)
        self._active[number] = _Active(request, limit, extras)
        self._next += 1
        return number

    def cancel(self, number: int) -> bool:
        """Nobody wants this request any more; False if it is not there (it ended, say)."""
        active = self._active.pop(number, None)
        if active is not None and active.row >= 0:
            self._rows.release(np.array([active.row]))
        return self.scheduler.end(number)

    def step(self) -> Step:
        """Compute what is due and sample a token for every request that is ready.

        If the pass fails (memory, weights that are not finite) those in it are ended before the error goes on.
        """
        plan = self.scheduler.plan()
        if not plan.chunks:
            return Step([], [])
        try:
            with memory_errors(_LESS), torch.inference_mode():
                step = self._carry_out(plan)
        except BaseException:
            for chunk in plan.chunks:
                self.cancel(chunk.number)
            raise
        if not self.scheduler.busy:
            self.scheduler.check()
        return step

    def forget(self) -> None:
        """Forget what is kept of earlier requests: after the weights have changed."""
        self.scheduler.pool.forget()

    def _carry_out(self, plan: Plan) -> Step:
        self._cache.copy(plan.copies)
        self._cache.work = work = Work.of(plan.chunks, self._cache)
        chunks = work.chunks
        tokens = [token for chunk in chunks for token in self.scheduler.tokens(chunk)]
        tokens_1N = torch.tensor([tokens], device=self._cache.device)
        hidden_ND = self._model(tokens_1N, positions_BT=work.positions_1N)[0]
        last = {}
        for chunk, stop in zip(chunks, np.cumsum([chunk.n_tokens for chunk in chunks]).tolist(), strict=True):
            self._tell_prompt(chunk, hidden_ND[stop - chunk.n_tokens : stop])
            last[chunk.number] = stop - 1
        ready = self.scheduler.computed(plan)
        if not ready:
            return Step([], [])
        at = np.array([self._row(number) for number, _ in ready])
        computed, which = np.unique([last[chunk.number] for _, chunk in ready], return_inverse=True)
        logits_UV = self._model.logits(hidden_ND[computed.tolist()])
        in_order = np.array_equal(which, np.arange(len(computed)))
        step = self._rows.step(logits_UV if in_order else logits_UV[which.tolist()], at)
        ended = {number for number, _ in step.finished}
        for number in ended:
            del self._active[number]
            self.scheduler.end(number)
        for one in step.sampled:
            if one.number not in ended:
                self.scheduler.record(one.number, one.token)
        return step

    def _tell_prompt(self, chunk: Chunk, hidden_TD: torch.Tensor) -> None:
        active = self._active[chunk.number]
        how, prompt = active.request.sampling, active.request.prompt
        if how.prompt_logprobs and chunk.start < len(prompt):
            targets = prompt[chunk.start + 1 : chunk.stop + 1]
            found = prompt_logprobs(self._model.logits, hidden_TD[: len(targets)], targets, how.top_logprobs)
            self._rows.tell_prompt(self._row(chunk.number), *found)

    def _row(self, number: int) -> int:
        active = self._active[number]
        if active.row < 0:
            active.row = int(self._rows.free[0])
            cached = self.scheduler.cached(number)
            self._rows.admit(active.row, number, active.request, active.limit, active.extras, cached)
        return active.row

    def _limit(self, request: Request) -> int:
        """Tokens that a request can get within the model's context."""
        return min(request.sampling.max_tokens, self._config.max_seq_len - len(request.prompt))
