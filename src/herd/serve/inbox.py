"""Answers on the event loop's side: what a backend has put in and nobody has read yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from herd.errors import HerdError
from herd.serve.backend import ComputeError, Ended, NotReadyError, Said


class Inbox:
    """Implements `Answers` for `count` requests; used on the event loop's thread alone.

    on_cancel is called with the index of each answer that nobody wants any more, on_close for each that is over.
    """

    def __init__(self, count: int, *, on_cancel: Callable[[int], None], on_close: Callable[[], None]) -> None:
        self.open = set(range(count))
        self.begun = False  # whether anything has come yet
        self._on_cancel, self._on_close = on_cancel, on_close
        self._events: list[Said | Ended] = []
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def __aiter__(self) -> AsyncIterator[list[Said | Ended]]:
        while True:
            if self._events:
                events, self._events = self._events, []
                yield events
            elif self._error is not None:
                raise self._error
            elif not self.open:
                return
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    def put(self, event: Said | Ended) -> None:
        """Of an answer that is open. `wake` tells the reader; after an `Ended` it is closed."""
        self._events.append(event)
        self.begun = True
        if isinstance(event, Ended):
            self._close(event.which)

    def cancel(self, which: int | None = None) -> None:
        for one in [which] if which is not None else list(self.open):
            if one in self.open:
                self._close(one)
                self._on_cancel(one)
        self.wake()

    def fail(self, error: BaseException) -> None:
        """End all that are open; the reader gets the error."""
        if self.open:
            self._error = error
            self.cancel()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _close(self, index: int) -> None:
        self.open.discard(index)
        self._on_close()


def as_compute_error(error: BaseException) -> ComputeError:
    """What a client may know of a failure: the sentence of an error of herd's, and nothing of any other."""
    if isinstance(error, HerdError):
        return ComputeError(error.message, mend=error.mend)
    return ComputeError("the engine failed while computing this request", mend="the server's log has the cause")


def stopping() -> NotReadyError:
    return NotReadyError("the server is stopping", mend="send it to another server, or again later")
