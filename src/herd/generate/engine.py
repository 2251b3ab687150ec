"""The embedded engine: batched generation with a herd model, on the device that the model is on.

    engine = Engine(model, batch_size=256)
    completions = engine.generate([Request(prompt, Sampling(seed=i)) for i in range(8)])

    handle = engine.submit(request)             # for a server: requests come and go while others run
    step = engine.step()

`generate` runs requests of like length together over a dense cache, so that a short one does not pay for a long one's;
within such a group finished rows are refilled at once. Many candidates of a long prompt, and what is submitted, run
over pages (`continuous`): beginnings in common are computed and kept once, and memory follows what is said. Not
covered: beams.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from herd.devices import memory_errors
from herd.errors import SettingError
from herd.generate.checks import check_request
from herd.generate.continuous import Continuous
from herd.generate.extras import check_stop
from herd.generate.pages import PAGE
from herd.generate.protocol import SILENT, Completion, Request, Step
from herd.generate.settings import SchedulerSettings
from herd.generate.slots import PREFILL_TOKENS, Slots
from herd.generate.speculation import Drafter, Statistics
from herd.llama.model import Llama
from herd.progress import Progress
from herd.text.stream import StreamDecoder
from herd.text.tokenizer import Tokenizer

Numbered = tuple[int, Request]

_REFILL = 8  # refill when an eighth of the rows is free: one prefill for many prompts, few rows idle meanwhile
_LESS = "lower the engine's batch_size (suite.batch_size of a recipe), or ask for fewer tokens"
_MANY, _LONG = 8, 256  # so many candidates of a prompt of so many tokens are no slower over pages (docs/generation.md)
_COMPACT = 0.75  # with nobody waiting, shrink when fewer than this share of the rows is in use


class Engine:
    """Implements `Generator` on a `Llama`.

    batch_size: rows that run at once. cache_tokens: positions that all rows together may hold, which bounds memory
    (`config.cache_bytes_per_token()` each); long requests run in smaller batches. tokenizer: what stop texts are
    looked for with. scheduling: how steps are shared among what is submitted. drafter: guesses what comes next where
    few requests run (`speculation`); it changes no token. cache_dtype: of keys and values in pages, None for the
    model's; torch.float8_e4m3fn holds twice as many positions as bfloat16.
    """

    def __init__(
        self,
        model: Llama,
        *,
        batch_size: int = 256,
        cache_tokens: int = 65_536,
        tokenizer: Tokenizer | None = None,
        scheduling: SchedulerSettings | None = None,
        drafter: Drafter | None = None,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("cache_tokens", cache_tokens)):
            if value < 1:
                raise SettingError(f"{name} is {value}", where=name, mend="give 1 at least")
        self._model, self._batch_size, self._cache_tokens = model, batch_size, cache_tokens
        self._decoder = None if tokenizer is None else partial(StreamDecoder, tokenizer, skip_special=True)
        self._scheduling, self._drafter = scheduling or SchedulerSettings(), drafter
        self._cache_dtype = cache_dtype
        self._fingerprint = tokenizer.fingerprint if tokenizer is not None and drafter is not None else ""
        self._continuous: Continuous | None = None

    @property
    def continuous(self) -> Continuous:
        """The pages and the requests on them, made when they are first used."""
        if self._continuous is None:
            self._continuous = self._over_pages(self._cache_tokens, self._scheduling)
        return self._continuous

    @property
    def drafting(self) -> Statistics:
        """How many guesses were checked and accepted for what was submitted, and why none are made any more."""
        return self._continuous.drafting if self._continuous else Statistics()

    @property
    def busy(self) -> bool:
        """Whether anything that was submitted runs or waits."""
        return self._continuous is not None and self._continuous.busy

    def submit(self, request: Request, *, priority: int = 0) -> int:
        """Queue a request beside those that run; its handle. Lower priorities go first.

        Raises InputError for a request that cannot be done, with what it may be at most, and BusyError when the queue
        is full.
        """
        self._check(request, "the prompt")
        return self.continuous.submit(request, priority=priority)

    def step(self) -> Step:
        """One pass over what was submitted: the tokens that it sampled, and the completions that ended."""
        return self.continuous.step()

    def has(self, handle: int) -> bool:
        """Whether a request that was submitted runs or waits still."""
        return self.continuous.has(handle)

    def cancel(self, handle: int) -> bool:
        """Nobody wants this request any more, waiting or running; False if it is not there."""
        return self.continuous.cancel(handle)

    def generate(self, requests: Sequence[Request], progress: Progress = SILENT) -> list[Completion]:
        """One completion for each request, in their order. InputError for a prompt that cannot be continued."""
        for number, request in enumerate(requests):
            self._check(request, f"request {number}")
        done: dict[int, Completion] = {}
        n_tokens, start = 0, time.monotonic()
        with memory_errors(_LESS), torch.inference_mode():
            shared, others = self._by_sharing(requests)
            runs = [self._run(group) for group in self._groups(others)]
            for run in [self._run_over_pages(shared), *runs] if shared else runs:
                for finished in run:
                    done.update(finished)
                    n_tokens += sum(len(completion.tokens) for _, completion in finished)
                    rate = n_tokens / max(time.monotonic() - start, 1e-9)
                    progress.update(len(done), len(requests), "requests", {"tokens/s": round(rate)})
        return [done[number] for number in range(len(requests))]

    def stream(self, request: Request) -> Iterator[tuple[int, float]]:
        """The tokens of one request as they come, each with its log-probability; the stop id is the last."""
        self._check(request, "the prompt")
        return self._stream(request)

    def _over_pages(self, cache_tokens: int, settings: SchedulerSettings) -> Continuous:
        return Continuous(
            self._model,
            cache_tokens=cache_tokens,
            settings=settings,
            decoder=self._decoder,
            cache_dtype=self._cache_dtype,
            drafter=self._drafter,
            fingerprint=self._fingerprint,
        )

    def _stream(self, request: Request) -> Iterator[tuple[int, float]]:
        return self._stream_drafted(request) if self._drafter is not None else self._stream_plain(request)

    def _stream_drafted(self, request: Request) -> Iterator[tuple[int, float]]:
        batch = self._over_pages(self._room(request) + PAGE, self._scheduling)
        batch.submit(request)
        while batch.busy:
            for one in batch.step().sampled:
                yield one.token, one.logprob

    def _stream_plain(self, request: Request) -> Iterator[tuple[int, float]]:
        slots = Slots(self._model, 1, self._room(request), self._decoder)
        finished = False
        with memory_errors(_LESS), torch.inference_mode():
            slots.admit([(0, request)])
        while not finished:
            with (
                memory_errors(_LESS),
                torch.inference_mode(),
            ):  # not around the yield: the caller's code is the caller's business
                step = slots.step()
                finished = bool(step.finished)
            one = step.sampled[0]
            yield one.token, one.logprob
            if not finished:
                with memory_errors(_LESS), torch.inference_mode():
                    slots.advance()

    def _run(self, group: list[Numbered]) -> Iterator[list[tuple[int, Completion]]]:
        """Run requests of like length through one set of slots; yields those that finish, step by step."""
        room = max(self._room(request) for _, request in group)
        rows = max(1, min(self._batch_size, self._cache_tokens // room, len(group)))
        slots, waiting = Slots(self._model, rows, room, self._decoder), deque(group)
        while True:
            free = slots.n_free
            if waiting and free >= min(len(waiting), max(1, rows // _REFILL)):
                slots.admit([waiting.popleft() for _ in range(min(free, len(waiting)))])
            elif not waiting and slots.n_rows - free < _COMPACT * slots.n_rows:
                slots.compact()
            finished = slots.step().finished
            if finished:
                yield finished
            if not waiting and slots.n_free == slots.n_rows:
                return
            slots.advance()

    def _by_sharing(self, requests: Sequence[Request]) -> tuple[list[Numbered], list[Numbered]]:
        """Many candidates of long prompts, and what guesses are made for, which go over pages, and all others."""
        guessed = self._drafter is not None and len(requests) <= self._scheduling.max_drafting
        counts = Counter(request.prompt for request in requests)
        shared: list[Numbered] = []
        others: list[Numbered] = []
        for number, request in enumerate(requests):
            many = guessed or (counts[request.prompt] >= _MANY and len(request.prompt) >= _LONG)
            fits = self._room(request) <= self._cache_tokens // PAGE * PAGE
            (shared if many and fits else others).append((number, request))
        return shared, others

    def _run_over_pages(self, group: list[Numbered]) -> Iterator[list[tuple[int, Completion]]]:
        """Run requests over pages of their own; yields those that finish, step by step."""
        rooms = sorted((-(-self._room(request) // PAGE) * PAGE for _, request in group), reverse=True)
        rows = min(self._batch_size, len(group))
        batch = self._over_pages(
            min(self._cache_tokens, sum(rooms[:rows])),
            replace(
                self._scheduling,
                max_running=rows,
                token_budget=rows + PREFILL_TOKENS,
                max_waiting=len(group),
                share=True,
            ),
        )
        numbers = {batch.submit(request): number for number, request in group}
        while batch.busy:
            finished = batch.step().finished
            if finished:
                yield [(numbers[handle], completion) for handle, completion in finished]

    def _groups(self, numbered: list[Numbered]) -> Iterator[list[Numbered]]:
        """Requests whose room differs by less than a factor of two, longest first, equal prompts side by side."""
        numbered.sort(key=lambda item: (-self._room(item[1]), item[1].prompt))
        group: list[Numbered] = []
        for item in numbered:
            if group and 2 * self._room(item[1]) <= self._room(group[0][1]):
                yield group
                group = []
            group.append(item)
        if group:
            yield group

    def _room(self, request: Request) -> int:
        """Positions that a request can come to need, prompt and continuation."""
        return min(len(request.prompt) + request.sampling.max_tokens, self._model.config.max_seq_len)

    def _check(self, request: Request, where: str) -> None:
        check_request(request, self._model.config, where)
        check_stop(request, self._decoder)
