"""The embedded engine: batched generation with a herd model, on the device that the model is on.

    engine = Engine(model, batch_size=256)
    completions = engine.generate([Request(prompt, Sampling(seed=i)) for i in range(8)])

    handle = engine.submit(request)             # for a server: requests come and go while others run
    step = engine.step()

All run over pages (`continuous`): requests take the place of those that end at once, beginnings in common are computed
and kept once, and memory follows what is said. Not covered: beams.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from herd.errors import SettingError
from herd.generate.checks import check_request
from herd.generate.continuous import Continuous
from herd.generate.extras import check_stop
from herd.generate.invariant import decide
from herd.generate.model_drafter import weight_bytes
from herd.generate.pages import PAGE
from herd.generate.protocol import SILENT, Completion, Request, Step
from herd.generate.settings import SchedulerSettings
from herd.generate.speculation import Drafter, Statistics, Target
from herd.llama.model import Llama
from herd.progress import Progress
from herd.text.stream import StreamDecoder
from herd.text.tokenizer import Tokenizer

PREFILL_TOKENS = 4_096  # of prompts in one pass: activations stay near the cache (16,384 take 30 % longer on a CPU)


class Engine:
    """Implements `Generator` on a `Llama`.

    batch_size: rows that run at once. cache_tokens: positions that all rows together may hold, which bounds memory
    (`config.cache_bytes_per_token()` each); long requests run in smaller batches. tokenizer: what stop texts are
    looked for with. scheduling: how steps are shared among what is submitted. drafter: guesses what comes next where
    few requests run (`speculation`); it changes no token. cache_dtype: of keys and values in pages, None for the
    model's; torch.float8_e4m3fn holds twice as many positions as bfloat16. invariant: whether a request gives the same
    bits whatever runs beside it (`herd.generate.invariant`); None: where that costs under a tenth, which is on a CPU
    with the compiled kernels, without adapters, and for matrices in bfloat16 or fewer bits (measured: 3 % for 256 rows
    of a model of 7M parameters, 5 % of a prompt of 512 tokens in 1B, and a gain for few rows; in float32 18 %).
    True where it cannot be is a SettingError, and so is a drafter of another vocabulary.
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
        invariant: bool | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("cache_tokens", cache_tokens)):
            if value < 1:
                raise SettingError(f"{name} is {value}", where=name, mend="give 1 at least")
        self._model, self._batch_size, self._cache_tokens = model, batch_size, cache_tokens
        self._decoder = None if tokenizer is None else partial(StreamDecoder, tokenizer, skip_special=True)
        self._scheduling, self._drafter = scheduling or SchedulerSettings(), drafter
        self._cache_dtype, self._invariant = cache_dtype, decide(model, invariant, cache_dtype)
        self._fingerprint = tokenizer.fingerprint if tokenizer is not None and drafter is not None else ""
        self._continuous: Continuous | None = None
        if drafter is not None:  # refused here, not when the first request comes
            drafter.check(Target(model.config.vocab_size, self._fingerprint, cache_tokens, weight_bytes(model)))

    @property
    def continuous(self) -> Continuous:
        """The pages and the requests on them, made when they are first used."""
        if self._continuous is None:
            self._continuous = self._over_pages(self._cache_tokens, self._scheduling)
        return self._continuous

    @property
    def invariant(self) -> bool:
        """Whether a request gives the same bits whatever runs beside it."""
        return self._invariant

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

    def bytes_of(self, request: Request) -> int:
        """Bytes of keys and values that a request can come to need, of the `cache_bytes` that there are."""
        self._check(request, "the prompt")
        return self.continuous.bytes_of(request)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the pages of all that is submitted."""
        return self.continuous.cache_bytes

    def step(self) -> Step:
        """One pass over what was submitted: the tokens that it sampled, and the completions that ended."""
        return self.continuous.step()

    def forget(self) -> None:
        """Forget what is kept of earlier requests, by the drafter too: after weights have changed."""
        if self._continuous is not None:
            self._continuous.forget()

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
        for finished in self._run(requests):
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
            invariant=self._invariant,
            drafter=self._drafter,
            fingerprint=self._fingerprint,
        )

    def _stream(self, request: Request) -> Iterator[tuple[int, float]]:
        batch = self._over_pages(self._room(request) + PAGE, self._scheduling)
        batch.submit(request)
        while batch.busy:
            for one in batch.step().sampled:
                yield one.token, one.logprob

    def _run(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completion]]]:
        """Run requests over pages of their own, the longest first, equal prompts side by side; yields those that
        finish, step by step."""
        if not requests:
            return
        numbered = sorted(enumerate(requests), key=lambda item: (-self._room(item[1]), item[1].prompt))
        rooms = [-(-self._room(request) // PAGE) * PAGE for _, request in numbered]
        rows = min(self._batch_size, len(numbered))
        batch = self._over_pages(
            max(rooms[0], min(self._cache_tokens, sum(rooms[:rows]))),
            replace(
                self._scheduling,
                max_running=rows,
                token_budget=rows + PREFILL_TOKENS,
                max_waiting=len(numbered),
                patience=len(numbered),
                share=True,
            ),
        )
        numbers = {batch.submit(request): number for number, request in numbered}
        while batch.busy:
            finished = batch.step().finished
            if finished:
                yield [(numbers[handle], completion) for handle, completion in finished]

    def _room(self, request: Request) -> int:
        """Positions that a request can come to need, prompt and continuation."""
        return min(len(request.prompt) + request.sampling.max_tokens, self._model.config.max_seq_len)

    def _check(self, request: Request, where: str) -> None:
        check_request(request, self._model.config, where)
        check_stop(request, self._decoder)
