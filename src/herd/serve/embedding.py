"""An embeddings request on its way through the engine's thread, a part at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress

from herd.serve.inbox import as_compute_error

log = logging.getLogger("herd.serve")


class Embedding:
    """`parts` yields None where other work may come first, and a vector for each text. `done` is for the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, parts: Iterator[list[float] | None]) -> None:
        self._loop, self._parts = loop, parts
        self._found: list[list[float]] = []
        self.done: asyncio.Future[list[list[float]]] = loop.create_future()

    def advance(self) -> bool:
        """On the engine's thread: compute the next part; whether more is to come."""
        if self.done.cancelled():
            return False
        try:
            part = next(self._parts)
        except StopIteration:
            self._tell(None)
            return False
        except Exception as error:
            log.exception("an embedding failed")
            self._tell(as_compute_error(error))
            return False
        if part is not None:
            self._found.append(part)
        return True

    def settle(self, error: BaseException | None) -> None:
        """On the event loop's thread."""
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(self._found)

    def _tell(self, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the event loop is gone, and whoever asked with it
            self._loop.call_soon_threadsafe(self.settle, error)
