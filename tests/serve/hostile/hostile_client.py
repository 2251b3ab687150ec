"""Bytes sent to a server as they are."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from serving import Running

KEY = "sk-hostile"


@dataclass(frozen=True)
class Raw:
    server: Running

    def __call__(self, data: bytes, *, quiet: float = 5.0) -> bytes:
        """All that the server sends until it closes, or has sent nothing for `quiet` seconds."""
        found = b""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=quiet) as connection:
            with suppress(OSError):  # the server may hang up while it is sent to
                connection.sendall(data)
            with suppress(OSError):
                while piece := connection.recv(65_536):
                    found += piece
        return found

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """One well-formed request, but for what `headers` say."""
        return self(request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}))


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    around = {"Host": "localhost", "Authorization": f"Bearer {KEY}", "Connection": "close"}
    if body:
        around |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in (around | dict(headers or {})).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]
