"""Continuous batching over pages: requests come and go while others run, a step at a time. What a server runs.

    batch = Continuous(model, cache_tokens=65_536)
    number = batch.submit(request)
    while batch.busy:
        step = batch.step()          # step.sampled: Sampled(number, token, ...); step.finished: (number, Completion)

One step is one pass over the tokens that the scheduler chose. Not thread-safe: who serves many callers takes turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from herd.devices import memory_errors
from herd.generate.checking import Place, sample_places
from herd.generate.extras import Extras, MakeDecoder
from herd.generate.invariant import decide, with_rows
from herd.generate.jobs import Chunk, Plan
from herd.generate.logits import StepLogits
from herd.generate.model_drafter import weight_bytes
from herd.generate.paged_cache import PagedCache
from herd.generate.pages import PAGE, Pages
from herd.generate.passes import Passes
from herd.generate.protocol import Request, Step
from herd.generate.rows import Rows
from herd.generate.sampling import prompt_logprobs
from herd.generate.scheduler import Scheduler
from herd.generate.settings import SchedulerSettings
from herd.generate.speculation import Drafter, Speculation, Statistics, Target, Wanted
from herd.llama.model import Llama

_LESS = "lower the engine's batch_size (suite.batch_size of a recipe), its cache_tokens, or its token_budget"


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
        invariant: bool | None = None,
        drafter: Drafter | None = None,
        fingerprint: str = "",
    ) -> None:
        """`fingerprint`: of the tokenizer, "" if it is not known. Raises SettingError for a drafter of another one."""
        settings = settings or SchedulerSettings()
        weight = model.model.norm.weight  # never quantised, unlike the matrices
        pool = Pages(max(1, cache_tokens // PAGE), PAGE)
        with memory_errors(_LESS):
            self._cache = PagedCache(model.config, pool.count, PAGE, weight.dtype, weight.device, cache_dtype)
        self.scheduler = Scheduler(pool, settings, self._cache.page_bytes)
        self._config, self._decoder = model.config, decoder
        self.invariant = decide(model, invariant, cache_dtype)
        self.passes = Passes(with_rows(model) if self.invariant else model, self._cache)
        self._logits = StepLogits(self.passes.model, settings.max_running)
        self._rows = Rows(settings.max_running, model.config.max_seq_len)
        self._active: dict[int, _Active] = {}
        self._next = 0
        self._forced_now: set[int] = set()  # requests whose grammar made the guesses that are being checked
        target = Target(model.config.vocab_size, fingerprint, pool.count * PAGE, weight_bytes(model))
        self.drafting = Statistics()
        self.speculation = Speculation(drafter, target, self.drafting) if drafter else None

    @property
    def busy(self) -> bool:
        return self.scheduler.busy

    def has(self, number: int) -> bool:
        """Whether a request runs or waits. One that a failed step ended does not."""
        return number in self._active

    @property
    def cache_bytes(self) -> int:
        """Bytes of all pages."""
        return self.scheduler.pool.count * self._cache.page_bytes

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
        active = self._active.get(number)
        if active is not None and active.row >= 0:
            self._rows.release(np.array([active.row]))
        return self._end(number)

    def step(self) -> Step:
        """Compute what is due and sample a token for every request that is ready.

        If the pass fails (memory, weights that are not finite) those in it are ended before the error goes on.
        """
        plan = self.scheduler.plan(self._guesses())
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
        """Forget what is kept of earlier requests, by the drafter too: after weights have changed."""
        self.scheduler.pool.forget()
        self.passes.forget()
        if self.speculation is not None:
            self.speculation.forget()

    def _carry_out(self, plan: Plan) -> Step:
        self._cache.copy(plan.copies)
        chunks, hidden_ND = self.passes.run(plan.chunks, self.scheduler.tokens)
        last = {}
        for chunk, stop in zip(chunks, np.cumsum([chunk.n_tokens for chunk in chunks]).tolist(), strict=True):
            self._tell_prompt(chunk, hidden_ND[stop - chunk.n_tokens : stop])
            last[chunk.number] = stop - 1
        ready = self.scheduler.computed(plan)
        if not ready:
            return Step([], [])
        # equal prompts that were computed once have one row of logits
        wanted = [
            row
            for chunk in dict.fromkeys(chunk for _, chunk in ready)
            for row in range(last[chunk.number] - len(chunk.drafts), last[chunk.number] + 1)
        ]
        row_of = {row: i for i, row in enumerate(wanted)}
        places = [
            Place(self._row(number), row_of[last[chunk.number] - len(chunk.drafts)], chunk.drafts)
            for number, chunk in ready
        ]
        step = sample_places(self._rows, self._logits(hidden_ND[wanted]), places)
        self._record(step, plan)
        return step

    def _record(self, step: Step, plan: Plan) -> None:
        """Tell the scheduler and the drafter what was said, and that some requests are over."""
        said: dict[int, list[int]] = {}
        for one in step.sampled:
            said.setdefault(one.number, []).append(one.token)
        for chunk in plan.chunks:
            if chunk.drafts and chunk.number in said:
                same = zip(said[chunk.number], chunk.drafts, strict=False)  # one token more than guesses, or fewer
                accepted = sum(token == draft for token, draft in same)
                if chunk.number in self._forced_now:
                    self.drafting.forced += accepted
                elif self.speculation:
                    self.speculation.checked(chunk.number, len(chunk.drafts), accepted)
        for number, _ in step.finished:
            del said[number]
            self._end(number)
        for number, tokens in said.items():
            self.scheduler.record(number, tokens)

    def _guesses(self) -> Mapping[int, Sequence[int]]:
        """What some requests may go on with: what grammars force, and what the drafter thinks of the others."""
        found: dict[int, Sequence[int]] = {}
        wanted = []
        for number, tokens, most in self.scheduler.draftable():
            active = self._active[number]
            edits = active.extras.edits if active.extras else None
            if forced := edits.forced()[:most] if edits else ():
                found[number] = forced
            elif self.speculation is not None and not self.scheduler.crowded:
                n_said = len(tokens) - len(active.request.prompt)
                wanted.append(Wanted(number, tokens, n_said, active.request.sampling, most))
        self._forced_now = set(found)
        return {**found, **self.speculation.propose(wanted)} if self.speculation else found

    def _end(self, number: int) -> bool:
        """A request is over; whether it was there."""
        self._active.pop(number, None)
        if self.speculation is not None:
            self.speculation.end(number)
        return self.scheduler.end(number)

    def _tell_prompt(self, chunk: Chunk, hidden_TD: torch.Tensor) -> None:
        active = self._active[chunk.number]
        how, prompt = active.request.sampling, active.request.prompt
        if how.prompt_logprobs and chunk.start < len(prompt):
            targets = prompt[chunk.start + 1 : chunk.stop + 1]
            found = prompt_logprobs(self.passes.model.logits, hidden_TD[: len(targets)], targets, how.top_logprobs)
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
