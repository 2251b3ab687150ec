"""Limits on connections that uvicorn has no setting for: slow heads, large heads, unread answers, their number.

A mixin over uvicorn's protocol, whichever parser is installed: it looks only at what asyncio tells every protocol, and
at `cycle`, the request that is being answered.
"""

from __future__ import annotations

import asyncio
from typing import Any

from herd.serve.settings import ServeSettings

_MOST_HEAD = 64 * 1024  # bytes of request line and headers
_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _Limited:
    """`limits` is set by `limited_protocol`."""

    limits: ServeSettings

    def connection_made(self, transport: Any) -> None:
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        super().connection_made(transport)  # type: ignore[misc]
        if len(self.connections) > self.limits.max_connections:  # type: ignore[attr-defined]
            self._end(_TOO_MANY)
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        if not self._is_answering():
            if self._head_timer is None:
                self._await_head()
            self._head_bytes += len(data)
        super().data_received(data)  # type: ignore[misc]
        if self._is_answering() or self.transport.is_closing():  # type: ignore[attr-defined]
            self._head_bytes = 0
            self._forget_head()
        elif self._head_bytes > _MOST_HEAD:
            self._end(_TOO_LARGE)

    def pause_writing(self) -> None:
        super().pause_writing()  # type: ignore[misc]
        if self._write_timer is None:
            self._write_timer = asyncio.get_running_loop().call_later(self.limits.write_seconds, self._abort)

    def resume_writing(self) -> None:
        self._forget_write()
        super().resume_writing()  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        self._forget_write()
        super().connection_lost(exc)  # type: ignore[misc]

    def _is_answering(self) -> bool:
        cycle = self.cycle  # type: ignore[attr-defined]
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        loop = asyncio.get_running_loop()
        self._head_timer = loop.call_later(self.limits.head_seconds, self._end, _TOO_SLOW)

    def _forget_head(self) -> None:
        _cancel(self._head_timer)
        self._head_timer = None

    def _forget_write(self) -> None:
        _cancel(self._write_timer)
        self._write_timer = None

    def _end(self, answer: bytes) -> None:
        """Say why, and close."""
        self._forget_head()
        transport: asyncio.Transport = self.transport  # type: ignore[attr-defined]
        if not transport.is_closing():
            transport.write(answer)
            transport.close()

    def _abort(self) -> None:
        """The client reads nothing: what is left to send is dropped with the connection."""
        self.transport.abort()  # type: ignore[attr-defined]


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def limited_protocol(settings: ServeSettings) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, the fast parser where it is installed, within `settings`."""
    base: Any
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as base
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol as base
    made: type[asyncio.Protocol] = type("LimitedProtocol", (_Limited, base), {"limits": settings})
    return made
