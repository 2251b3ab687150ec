"""A web server on this machine that gives a folder's files by ranges, and fails as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class ShardServer:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str]] = []  # path, range
        self.busy = 0  # requests that are answered with 503
        self.short = 0  # answers that end early, with a length that says so
        self.damage = 0  # answers of ranges with a bit changed
        self.ignore_ranges = False
        self.refuse = 0  # a status for all requests
        self.hold = threading.Event()  # while it is not set, ranges are not answered
        self.hold.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"shards": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def ranges(self) -> list[str]:
        return [range_ for _, range_ in self.asked if range_]

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(folder: Path) -> Iterator[ShardServer]:
    server = ShardServer(folder)
    try:
        yield server
    finally:
        server.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shards: ShardServer

    def do_GET(self) -> None:
        server, wanted = self.shards, self.headers.get("Range", "")
        server.asked.append((self.path, wanted))
        path = server.folder / self.path.lstrip("/")
        if wanted:
            server.hold.wait(20)
        if server.refuse or server.busy or not path.is_file():
            status = server.refuse or (503 if server.busy else 404)
            server.busy = max(0, server.busy - 1)
            self._answer(status, b"")
            return
        data = path.read_bytes()
        if wanted and not server.ignore_ranges:
            start, end = wanted.removeprefix("bytes=").split("-")
            data = data[int(start) : int(end) + 1]
            if server.damage:
                server.damage -= 1
                data = bytes([data[0] ^ 1]) + data[1:]
            if server.short:
                server.short -= 1
                data = data[:-5]
            self._answer(206, data)
        else:
            self._answer(200, data)

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass
