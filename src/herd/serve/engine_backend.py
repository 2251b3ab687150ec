"""The embedded engine as a `Backend`: one thread owns it, the event loop gets its tokens a step at a time.

The thread takes what it is asked (submit, cancel, embed) between two steps; after each step it hands the whole step
over with one call. So the engine never waits for a client, and an idle engine costs nothing. A step that fails ends its
requests; should the thread itself fail, all requests are ended and whoever runs the server is told.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from herd.errors import BusyError
from herd.generate.engine import Engine
from herd.generate.protocol import Request, Step
from herd.serve.backend import Ended, Load, NotReadyError, Said, Served
from herd.serve.embedding import Embedding
from herd.serve.inbox import Inbox, as_compute_error, stopping
from herd.serve.pacing import Waker

Embed = Callable[[Sequence[Sequence[int]]], Iterator[list[float] | None]]
log = logging.getLogger("herd.serve")
_NOT_READY = "the model is being loaded"


@dataclass(frozen=True)
class Loaded:
    """What `load` gives. `embed` yields None where other work may come first, and a vector for each prompt."""

    engine: Engine
    served: Served
    embed: Embed


class _Answers(Inbox):
    """`handles`: the engine's numbers by index, which the engine's thread fills."""

    def __init__(self, backend: EngineBackend, count: int) -> None:
        super().__init__(count, on_cancel=lambda index: backend.cancel(self, index), on_close=backend.closed)
        self.handles: dict[int, int] = {}


class EngineBackend:
    """Implements `Backend` over what `load` returns; `load` runs in the engine's thread.

    most: requests that may run and wait at once. on_ready and on_failure are called on the event loop's thread when
    the model is there, or when it could not be loaded or the engine's thread has failed.
    """

    def __init__(
        self,
        load: Callable[[], Loaded],
        *,
        most: int,
        on_ready: Callable[[], None] | None = None,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._load, self._most, self._on_ready, self._on_failure = load, most, on_ready, on_failure
        self._loaded: Loaded | None = None
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._owners: dict[int, tuple[_Answers, int]] = {}  # by the engine's number
        self._answers: weakref.WeakSet[_Answers] = weakref.WeakSet()  # those that anybody still reads
        self._embeddings: set[Embedding] = set()
        self._live = 0  # requests that run or wait
        self._draining = self._told_failure = False
        self._stats = Load()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waker = Waker(self._loop)
        self._thread.start()

    async def stop(self) -> None:
        self.drain()
        for answers, _ in list(self._owners.values()):
            answers.fail(stopping())
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join)

    def drain(self) -> None:
        self._draining = True

    @property
    def served(self) -> Served:
        return self._ready().served

    @property
    def load(self) -> Load:
        return self._stats

    def submit(self, requests: Sequence[Request]) -> _Answers:
        loaded = self._ready_for(len(requests))
        answers = _Answers(self, len(requests))
        self._answers.add(answers)
        self._live += len(requests)
        self._commands.put(lambda: self._submit(loaded.engine, answers, requests))
        return answers

    def cancel(self, answers: _Answers, index: int) -> None:
        """The request is closed already; the engine is told."""
        self._commands.put(lambda: self._cancel(answers, index))

    def closed(self) -> None:
        self._live -= 1

    async def embed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        loaded = self._ready_for(1)
        embedding = Embedding(self._loop, loaded.embed(prompts))
        self._embeddings.add(embedding)
        self._live += 1
        try:
            self._commands.put(lambda: self._advance(embedding))
            return await embedding.done
        finally:
            self._embeddings.discard(embedding)
            self.closed()

    def _ready(self) -> Loaded:
        if self._draining:
            raise stopping()
        if self._loaded is None:
            raise NotReadyError(_NOT_READY, mend="try again in a moment")
        return self._loaded

    def _ready_for(self, count: int) -> Loaded:
        loaded = self._ready()
        if self._live + count > self._most:
            raise BusyError(f"{self._live} requests run or wait already", mend="try again later")
        return loaded

    # On the engine's thread.

    def _run(self) -> None:
        try:
            self._loaded = loaded = self._load()
            if self._on_ready is not None:
                self._tell(self._on_ready)
            while self._obey(wait=not loaded.engine.busy):
                if loaded.engine.busy:
                    self._step(loaded.engine)
        except BaseException as error:
            self._tell(self._give_up, error)

    def _obey(self, *, wait: bool) -> bool:
        """Do what was asked since the last step; False to stop. With `wait` there is nothing else to do until then.

        What is asked meanwhile waits for the next time: a long embedding asks for its own next part.
        """
        for _ in range(max(self._commands.qsize(), int(wait))):
            command = self._commands.get()
            if command is None:
                return False
            command()
        return True

    def _step(self, engine: Engine) -> None:
        try:
            step = engine.step()
        except BaseException as error:  # the engine has ended the requests in the step; the others go on
            log.exception("a step of the engine failed")
            gone = [number for number in list(self._owners) if not engine.has(number)]
            if not gone:  # the next step would fail in the same way, for ever
                raise
            self._tell(self._failed, gone, error)
        else:
            self._measure(engine)
            self._tell(self._deliver, step)

    def _measure(self, engine: Engine) -> None:
        scheduler = engine.continuous.scheduler
        pool = scheduler.pool
        drafting = engine.drafting
        if drafting.failure and not self._told_failure:
            self._told_failure = True
            log.warning("nothing is guessed ahead any more: %s", drafting.failure)
        self._stats = Load(
            scheduler.n_running,
            scheduler.n_waiting,
            pool.count,
            pool.count - pool.available,
            drafting.drafted,
            drafting.accepted,
        )

    def _submit(self, engine: Engine, answers: _Answers, requests: Sequence[Request]) -> None:
        for index, request in enumerate(requests):
            if index not in answers.open:  # nobody wants it any more
                continue
            try:
                number = engine.submit(request)
            except Exception as error:
                self._tell(answers.fail, error)
                return
            answers.handles[index] = number
            self._owners[number] = (answers, index)

    def _cancel(self, answers: _Answers, index: int) -> None:
        number = answers.handles.pop(index, None)
        if number is not None:
            self._owners.pop(number, None)
            assert self._loaded is not None
            self._loaded.engine.cancel(number)
            self._measure(self._loaded.engine)

    def _advance(self, embedding: Embedding) -> None:
        """The rest of an embedding stands behind what else was asked."""
        if embedding.advance():
            self._commands.put(lambda: self._advance(embedding))

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        """Call on the event loop's thread; when that is gone there is nobody to tell."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    # On the event loop's thread.

    def _deliver(self, step: Step) -> None:
        touched: dict[Inbox, bool] = {}
        for number, token, logprob, top in step.sampled:
            owner = self._owners.get(number)
            if owner is not None and owner[1] in owner[0].open:
                answers, index = owner
                touched[answers] = touched.get(answers, False) or not answers.begun
                answers.put(Said(index, token, logprob, top))
        for number, completion in step.finished:
            owner = self._owners.pop(number, None)
            if owner is not None and owner[1] in owner[0].open:
                answers, index = owner
                answers.put(Ended(index, completion))
                touched[answers] = True
        self._waker.tell(touched)

    def _give_up(self, error: BaseException) -> None:
        """There is no engine, or none any more."""
        self.drain()
        if self._loaded is not None:
            log.critical("the engine has ended", exc_info=error)
        for answers in list(self._answers):
            answers.fail(as_compute_error(error))
        for embedding in list(self._embeddings):
            embedding.settle(as_compute_error(error))
        if self._on_failure is not None:
            self._on_failure(error)
        else:
            log.error("the model cannot be served: %s", error)

    def _failed(self, gone: Sequence[int], error: BaseException) -> None:
        for number in gone:  # those that ended before the failure have been delivered by now
            owner = self._owners.pop(number, None)  # the engine's thread may just have cancelled it
            if owner is not None:
                owner[0].fail(as_compute_error(error))
