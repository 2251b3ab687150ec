"""Bodies of requests, read no longer and no further than allowed, and all together within one budget.

body = bodies.of(receive)
message = await body.receive()      # ApiError 413, 408, or 503 when the others have taken the budget
body.release()                      # the request is over
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from herd.serve.replies import ApiError
from herd.serve.settings import ServeSettings


class Bodies:
    """All bodies of one server. `held`: bytes of those that belong to requests under way."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings, self.held = settings, 0

    def of(self, receive: Receive) -> Body:
        return Body(self, receive)

    def check_length(self, headers: Headers) -> None:
        """ApiError for a Content-Length that says enough already, and for two lengths: what stands behind such a body
        could be a request to one parser and text to another (smuggling), so the connection ends."""
        stated = headers.get("content-length", "0")
        if "content-length" in headers and "transfer-encoding" in headers:
            raise ApiError(400, "both Content-Length and Transfer-Encoding are given", code="two_lengths", closes=True)
        length = int(stated[:20]) if stated.isascii() and stated.isdigit() else self.settings.max_body_bytes + 1
        if length > self.settings.max_body_bytes:
            raise self.too_large()
        if self.held + length > self.settings.max_bodies_bytes:
            raise _no_room()

    def too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self.settings.max_body_bytes} bytes", code="body_too_large")


class Body:
    """One body; its time begins now."""

    def __init__(self, bodies: Bodies, receive: Receive) -> None:
        self._bodies, self._receive = bodies, receive
        self._until = asyncio.get_running_loop().time() + bodies.settings.body_seconds
        self._held, self._whole = 0, False

    async def receive(self) -> Message:
        """ASGI's `receive`. Behind the body it is the client's leaving that is waited for, without end."""
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "the body did not come in time", code="timeout") from None
        self._hold(len(message.get("body", b"")))
        self._whole = not message.get("more_body", False)
        return message

    def release(self) -> None:
        self._bodies.held -= self._held
        self._held = 0

    def _hold(self, count: int) -> None:
        self._held += count
        self._bodies.held += count
        if self._held > self._bodies.settings.max_body_bytes:
            raise self._bodies.too_large()
        if self._bodies.held > self._bodies.settings.max_bodies_bytes:
            raise _no_room()


def _no_room() -> ApiError:
    return ApiError(503, "other requests have taken the room for bodies; try again in a moment", code="busy")
