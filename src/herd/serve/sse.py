"""Server-sent events, and whether the client is still there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from herd.serve.backend import Ended, Said
from herd.serve.replies import as_api_error, dumps

log = logging.getLogger("herd.serve")
DONE = b"data: [DONE]\n\n"


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


@contextmanager
def when_gone(receive: Receive, call: Callable[[], object]) -> Iterator[None]:
    """Call once if the client goes away meanwhile. The request's body has been read."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        call()

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watcher.cancel()


class EventStream(Response):
    """Sends what `events` yields, each time at once. `gone` is called when the client has left.

    An error while it runs ends the stream with an event that holds it, as OpenAI's server does. Written without
    Starlette's task group, which costs more for a token than the token's JSON.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        gone: Callable[[], None],
        headers: Mapping[str, str] | None = None,
        as_error: Callable[[BaseException], bytes] | None = None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._events, self._gone = events, gone
        self._as_error = as_error or (lambda error: event(dumps(as_api_error(error).body())) + DONE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            with when_gone(receive, self._gone):
                async for data in self._until_error():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (OSError, RuntimeError):  # uvloop's word for a connection that was closed under the answer
            log.info("a client left while it was sent to")
        finally:
            self._gone()

    async def _until_error(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._events:
                yield data
        except Exception as error:
            yield self._as_error(error)


def grouped(batch: Sequence[Said | Ended]) -> list[list[Said | Ended]]:
    """A batch by answer, each in its order: what one answer goes on with makes one event."""
    found: dict[int, list[Said | Ended]] = {}
    for one in batch:
        found.setdefault(one.which, []).append(one)
    return list(found.values())
