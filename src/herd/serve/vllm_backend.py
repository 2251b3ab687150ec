"""vLLM as a `Backend`: the same HTTP API, computed on a cluster.

    backend = VllmBackend("Llama-3.1-405B-Instruct-FP8", VllmSettings(tensor_parallel=8), max_running=256, most=1024)

vLLM's engine runs in processes of its own and is asked with ids: chat format, tools, stop texts and limits stay the
server's. Tokens come from vLLM's own draws: a seed repeats them here, and gives others on the embedded engine.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from herd import __version__
from herd.errors import BusyError, HerdError, InputError
from herd.generate import vllm_requests
from herd.generate.protocol import Request
from herd.generate.settings import VllmSettings
from herd.generate.vllm import decoder_of, engine_arguments, vllm_errors, vllm_package
from herd.serve.backend import Ended, Load, NotReadyError, Said, Served
from herd.serve.inbox import Inbox, as_compute_error, stopping
from herd.text import Tokenizer

log = logging.getLogger("herd.serve")


class VllmBackend:
    """Implements `Backend`. `max_running` requests are computed at once; `most` may run and wait.

    on_ready and on_failure are called when the model is there, or could not be loaded.
    """

    def __init__(
        self,
        model: Path,
        settings: VllmSettings,
        *,
        max_running: int,
        most: int,
        on_ready: Callable[[], None] | None = None,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._model, self._settings = model, settings
        self._max_running, self._most, self._on_ready, self._on_failure = max_running, most, on_ready, on_failure
        self._vllm: Any = None
        self._engine: Any = None
        self._served: Served | None = None
        self._draining = False
        self._live = 0
        self._number = 0  # of the request that came last: vLLM wants names
        self._tasks: dict[tuple[Inbox, int], asyncio.Task[None]] = {}
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        self.drain()
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        for inbox, _ in list(self._tasks):
            inbox.fail(stopping())
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._engine is not None:
            await asyncio.to_thread(self._engine.shutdown)

    def drain(self) -> None:
        self._draining = True

    @property
    def served(self) -> Served:
        if self._draining:
            raise stopping()
        if self._served is None:
            raise NotReadyError("the model is being loaded", mend="try again in a moment")
        if self._engine.errored:
            raise NotReadyError("vLLM's engine has ended", mend="restart the server; its log says why")
        return self._served

    @property
    def load(self) -> Load:
        """vLLM tells its own metrics; here what waits is what it cannot compute at once."""
        running = min(self._live, self._max_running)
        return Load(running=running, waiting=self._live - running)

    def submit(self, requests: Sequence[Request]) -> Inbox:
        served = self.served
        if self._live + len(requests) > self._most:
            raise BusyError(f"{self._live} requests run or wait already", mend="try again later")
        inbox = Inbox(len(requests), on_cancel=lambda index: self._cancel(inbox, index), on_close=self._closed)
        self._live += len(requests)
        try:
            for request in requests:
                decoder = decoder_of(served.tokenizer)
                vllm_requests.check(request, served.context, served.vocab_size, "the prompt", decoder)
            how = [vllm_requests.parameters(self._vllm, request, stream=True) for request in requests]
        except HerdError as error:
            inbox.fail(error)
            return inbox
        for index, request in enumerate(requests):
            self._number += 1
            work = self._answer(inbox, index, request, how[index], f"herd-{self._number}")
            self._tasks[inbox, index] = asyncio.create_task(work)
        return inbox

    async def embed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        raise InputError("vLLM serves a model either for text or for embeddings", mend="serve embeddings without it")

    async def _load(self) -> None:
        try:
            self._served = await asyncio.to_thread(self._open)
        except BaseException as error:
            if self._on_failure is None:
                log.error("the model could not be loaded: %s", error)
            else:
                self._on_failure(error)
            return
        if self._on_ready is not None:
            self._on_ready()

    def _open(self) -> Served:
        """Minutes, in a thread of its own."""
        self._vllm = vllm = vllm_package()
        tokenizer = Tokenizer.load(self._model)
        arguments = {"max_num_seqs": self._max_running, **engine_arguments(self._model, self._settings)}
        with vllm_errors():
            self._engine = vllm.AsyncLLMEngine.from_engine_args(vllm.AsyncEngineArgs(**arguments))
        config = self._engine.model_config
        context = int(config.max_model_len)
        parallel = f"{self._settings.tensor_parallel} x {self._settings.pipeline_parallel} devices"
        text = f"{__version__} {getattr(vllm, '__version__', '')} {sorted(arguments.items())} {tokenizer.fingerprint}"
        return Served(
            tokenizer=tokenizer,
            context=context,
            room=context,
            vocab_size=int(config.get_vocab_size()),
            fingerprint="vllm_" + hashlib.sha256(text.encode()).hexdigest()[:12],
            created=int(time.time()),
            embeds=False,
            remarks=(f"computed by vLLM {getattr(vllm, '__version__', '')} on {parallel}, {context:,} positions",),
        )

    async def _answer(self, inbox: Inbox, index: int, request: Request, how: Any, name: str) -> None:
        assert self._served is not None
        collected = vllm_requests.Collected(request, decoder_of(self._served.tokenizer))
        try:
            prompt = {"prompt_token_ids": list(request.prompt)}
            async for output in self._engine.generate(prompt, how, name):
                for token, logprob, top in collected.add(output):
                    inbox.put(Said(index, token, logprob, top))
                inbox.wake()
            inbox.put(Ended(index, collected.completion()))
            inbox.wake()
        except asyncio.CancelledError:  # nobody wants it any more; vLLM was told by the same
            pass
        except ValueError as error:  # a form that its own grammar library does not support, say
            said = str(error)[:300]
            inbox.fail(InputError(f"vLLM does not take this request: {said}", mend="leave out what it names"))
        except Exception as error:
            log.exception("vLLM failed a request")
            inbox.fail(as_compute_error(error))
        finally:
            self._tasks.pop((inbox, index), None)

    def _cancel(self, inbox: Inbox, index: int) -> None:
        task = self._tasks.get((inbox, index))
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _closed(self) -> None:
        self._live -= 1
