"""The app listening: uvicorn within the limits of `ServeSettings`, stopped gracefully.

On SIGTERM or the first Ctrl-C nothing new is taken (503, and `/health` says so), what runs is finished within
`drain_seconds`; a second Ctrl-C ends at once.
"""

from __future__ import annotations

import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from herd.errors import SettingError
from herd.serve.backend import Backend
from herd.serve.connections import limited_protocol
from herd.serve.settings import ServeSettings


class Server(uvicorn.Server):
    """Tells the backend to take nothing more as soon as it is told to stop."""

    def __init__(self, config: uvicorn.Config, backend: Backend) -> None:
        super().__init__(config)
        self._backend = backend

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)  # first: it takes a server that stops already for the second Ctrl-C
        self.stop()
        self._captured_signals.clear()  # stopping as asked is a success: no signal is raised again at the end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()  # which uvicorn leaves out, so that its task is torn off

    def stop(self) -> None:
        """From any thread."""
        self._backend.drain()
        self.should_exit = True


def make_server(app: FastAPI, backend: Backend, settings: ServeSettings) -> Server:
    """Ready to `run(sockets=[...])`."""
    config = uvicorn.Config(
        app,
        http=limited_protocol(settings),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=512,
        timeout_keep_alive=round(settings.keep_alive_seconds),
        timeout_graceful_shutdown=round(settings.drain_seconds),
        h11_max_incomplete_event_size=64 * 1024,
    )
    return Server(config, backend)


def listen(settings: ServeSettings) -> socket.socket:
    """A socket on host and port. Raises SettingError where that cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host, settings.port))
        found.listen(512)
    except OSError as error:
        found.close()
        raise SettingError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}",
            where="port",
            mend="another program may listen there; give another --port, or 0 for any free one",
        ) from error
    return found


def address(listening: socket.socket) -> str:
    """The URL that reaches a socket from this machine."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)
    return f"http://{shown}:{port}"
