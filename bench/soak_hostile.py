"""Clients of `bench.soak` that mean no good, or do not know better. Each gives the statuses that it was answered with.

    statuses = await misbehave("slow head", port, rng)

A status over 499 but 503 is a fault of the server's, as is a connection that it never ends.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from bench.soak_http import Connection, head_bytes, post_bytes
from bench.soak_traffic import MODEL, words

Statuses = list[int]
CHAT = "/v1/chat/completions"
_GONE = (OSError, asyncio.IncompleteReadError)


def _body(rng: random.Random, **more: Any) -> bytes:
    messages = [{"role": "user", "content": words(rng, 20)}]
    return json.dumps({"model": MODEL, "messages": messages, "max_tokens": 128} | more).encode()


def _statuses(raw: bytes) -> Statuses:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})", raw)]


async def _leaves_a_stream(port: int, rng: random.Random) -> Statuses:
    connection = await Connection.to(port)
    await connection.send(post_bytes(CHAT, _body(rng, stream=True, n=rng.choice((1, 3)))))
    head = await connection.head()
    pieces = connection.pieces(head)
    for _ in range(rng.randint(0, 10)):
        if head.status == 200:
            with suppress(StopAsyncIteration, *_GONE):
                await anext(pieces)
    await _leave(connection, rng)
    return [head.status]


async def _leaves_before_the_answer(port: int, rng: random.Random) -> Statuses:
    connection = await Connection.to(port)
    path, body = rng.choice(
        (
            (CHAT, _body(rng, n=2)),
            ("/v1/embeddings", json.dumps({"model": MODEL, "input": [words(rng, 400)] * 8}).encode()),
            ("/v1/responses", json.dumps({"model": MODEL, "input": words(rng, 400)}).encode()),
        )
    )
    await connection.send(post_bytes(path, body))
    await asyncio.sleep(rng.uniform(0, 0.5))
    await _leave(connection, rng)
    return []


async def _leave(connection: Connection, rng: random.Random) -> None:
    if rng.random() < 0.5:
        connection.abort()
    else:
        await connection.close()


async def _half_a_body(port: int, rng: random.Random) -> Statuses:
    connection = await Connection.to(port)
    whole = post_bytes(CHAT, _body(rng))
    await connection.send(whole[: -rng.randint(1, 50)])
    await asyncio.sleep(rng.uniform(0, 5))
    await _leave(connection, rng)
    return []


async def _endless_chunks(port: int, rng: random.Random) -> Statuses:
    """Chunks until the server has had enough."""
    connection = await Connection.to(port)
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    await connection.send(head_bytes("POST", CHAT, headers))
    piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with suppress(*_GONE):
        for _ in range(600):
            await connection.send(piece)
    raw = await connection.rest()
    await connection.close()
    return _statuses(raw)


async def _malformed(port: int, rng: random.Random) -> Statuses:
    body = rng.choice(
        (
            b"{",
            b"\xff\xfe",
            b"[]",
            b"{}",
            b'{"model": "another", "messages": [{"role": "user", "content": "x"}]}',
            _body(rng)[:-1] + b', "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
            _body(rng, temperature=float("nan")),
            _body(rng, max_tokens=-1),
            _body(rng, n=10_000),
            _body(rng, messages=[]),
            _body(rng, messages=[0] * 20_000),
            _body(rng, logit_bias={str(i): "x" for i in range(20_000)}),
            _body(rng, stop=["x"] * 10_000),
            _body(rng, messages=[{"role": "user", "content": "\ud800"}]),
            _body(rng, messages=[{"role": "user", "content": words(rng, 20_000)}]),
            _body(rng, guided_regex="(" * 200),
            _body(rng, response_format={"type": "json_schema", "json_schema": {"schema": {"$ref": "#/nowhere"}}}),
        )
    )
    return await _ask(port, post_bytes(CHAT, body, {"Connection": "close"}))


async def _ask(port: int, data: bytes) -> Statuses:
    connection = await Connection.to(port)
    with suppress(*_GONE):
        await connection.send(data)
    raw = await connection.rest()
    await connection.close()
    return _statuses(raw)


async def _oversized(port: int, rng: random.Random) -> Statuses:
    return await _ask(port, post_bytes(CHAT, b"{", {"Content-Length": str(10**9), "Connection": "close"}))


async def _wrong_key(port: int, rng: random.Random) -> Statuses:
    headers = {"Authorization": rng.choice(("Bearer nobody", "Basic x", "")), "Connection": "close"}
    return await _ask(port, post_bytes(CHAT, _body(rng), headers))


async def _other_site(port: int, rng: random.Random) -> Statuses:
    name = rng.choice(("Host", "Origin"))
    value = rng.choice(("evil.example", "127.evil.example") if name == "Host" else ("http://evil.example", "http://["))
    return await _ask(port, post_bytes(CHAT, _body(rng), {name: value, "Connection": "close"}))


async def _slow_reader(port: int, rng: random.Random) -> Statuses:
    """Reads an answer a little at a time."""
    connection = await Connection.to(port)
    await connection.send(post_bytes(CHAT, _body(rng, stream=True, logprobs=True, top_logprobs=20)))
    raw = b""
    with suppress(*_GONE):
        for _ in range(rng.randint(1, 40)):
            raw += await connection.some(512)
            await asyncio.sleep(0.25)
    await _leave(connection, rng)
    return _statuses(raw)


async def _slow_head(port: int, rng: random.Random) -> Statuses:
    """A header at a time, until the server hangs up."""
    connection = await Connection.to(port)
    raw = b""
    with suppress(*_GONE):
        await connection.send(b"GET /health HTTP/1.1\r\n")
        for _ in range(60):
            await connection.send(b"X: y\r\n")
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    raw += (piece := await connection.some(4096))
                    if not piece:
                        break
        else:
            raise AssertionError("a head that never ends is waited for without end")
    await connection.close()
    return _statuses(raw)


async def _silent(port: int, rng: random.Random) -> Statuses:
    """A connection that says nothing: the server is to end it."""
    return await _ask(port, b"")


async def _pipelined(port: int, rng: random.Random) -> Statuses:
    whole = head_bytes("GET", "/health") + post_bytes(CHAT, _body(rng, max_tokens=2)) + head_bytes("GET", "/metrics")
    garbage = rng.choice((b"\x16\x03\x01\x02\x00", b"\x00" * 100, b"GET\r\n\r\n", rng.randbytes(200) + b"\r\n\r\n"))
    return await _ask(port, rng.choice((whole, b"")) + garbage)


async def _smuggled(port: int, rng: random.Random) -> Statuses:
    headers = {"Content-Length": "5", "Transfer-Encoding": "chunked"}
    hidden = b"0\r\n\r\n" + head_bytes("GET", "/v1/models", {"Connection": "close"})
    return await _ask(port, head_bytes("POST", CHAT, headers) + hidden)


async def _large_head(port: int, rng: random.Random) -> Statuses:
    return await _ask(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 2**20 + b"\r\n\r\n")


_WAYS: dict[str, tuple[float, Callable[[int, random.Random], Awaitable[Statuses]]]] = {
    "leaves a stream": (8, _leaves_a_stream),
    "leaves before the answer": (5, _leaves_before_the_answer),
    "half a body": (2, _half_a_body),
    "endless chunks": (0.3, _endless_chunks),
    "malformed": (4, _malformed),
    "oversized": (1, _oversized),
    "wrong key": (1, _wrong_key),
    "other site": (1, _other_site),
    "slow reader": (1, _slow_reader),
    "slow head": (1, _slow_head),
    "silent": (1, _silent),
    "pipelined garbage": (1, _pipelined),
    "smuggled": (1, _smuggled),
    "large head": (0.5, _large_head),
}
WAYS = tuple(_WAYS)


def draw(rng: random.Random) -> str:
    return rng.choices(WAYS, [weight for weight, _ in _WAYS.values()])[0]


async def misbehave(way: str, port: int, rng: random.Random) -> Statuses:
    """Statuses that came; none where the server hung up, or was not waited for. TimeoutError where it never ends."""
    try:
        return await _WAYS[way][1](port, rng)
    except _GONE:
        return []
