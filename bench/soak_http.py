"""HTTP/1.1 by hand for `bench.soak`: well-formed where it is to be, and broken where that is the point."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

KEY = "sk-soak"
WAIT = 120.0  # seconds after which a connection on which nothing comes is a fault


@dataclass(frozen=True)
class Head:
    """Status and headers of a response, names in lower case."""

    status: int
    headers: Mapping[str, str]


def head_bytes(method: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Request line and headers, host and key among them; `headers` win."""
    around = {"Host": "localhost", "Authorization": f"Bearer {KEY}"} | dict(headers or {})
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in around.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post_bytes(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    about = {"Content-Type": "application/json", "Content-Length": str(len(body))} | dict(headers or {})
    return head_bytes("POST", path, about) + body


class Connection:
    """One connection to the server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> Head:
        """Raises OSError or asyncio.IncompleteReadError where the server has closed instead."""
        async with asyncio.timeout(WAIT):
            raw = await self._reader.readuntil(b"\r\n\r\n")
        first, *rest = raw.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in rest if line)
        return Head(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs})

    async def body(self, head: Head) -> bytes:
        return b"".join([piece async for piece in self.pieces(head)])

    async def pieces(self, head: Head) -> AsyncIterator[bytes]:
        """The body as it comes, in whichever of HTTP's two ways."""
        if head.headers.get("transfer-encoding") != "chunked":
            async with asyncio.timeout(WAIT):
                yield await self._reader.readexactly(int(head.headers.get("content-length", "0")))
            return
        while True:
            async with asyncio.timeout(WAIT):
                size = int((await self._reader.readuntil(b"\r\n")).strip(), 16)
                piece = await self._reader.readexactly(size + 2)
            if not size:
                return
            yield piece[:-2]

    async def some(self, n: int) -> bytes:
        """Up to n bytes of whatever comes; empty when the server has closed."""
        async with asyncio.timeout(WAIT):
            return await self._reader.read(n)

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        found = b""
        with suppress(ConnectionError):
            while piece := await self.some(65_536):
                found += piece
        return found

    def abort(self) -> None:
        """Gone without a word: RST instead of FIN."""
        found = self._writer.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def get(port: int, path: str) -> tuple[int, bytes]:
    connection = await Connection.to(port)
    try:
        await connection.send(head_bytes("GET", path, {"Connection": "close"}))
        head = await connection.head()
        return head.status, await connection.body(head)
    finally:
        await connection.close()


async def events(pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """The data of server-sent events: JSON, or the text "[DONE]"."""
    held = b""
    async for piece in pieces:
        *whole, held = (held + piece).split(b"\n\n")
        for one in whole:
            data = b"\n".join(line[6:] for line in one.split(b"\n") if line.startswith(b"data: "))
            yield "[DONE]" if data == b"[DONE]" else json.loads(data)
    if held:
        raise ValueError(f"a stream ends within an event: {held[:80]!r}")
