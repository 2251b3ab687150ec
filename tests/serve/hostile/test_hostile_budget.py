"""Many bodies at once: together they stay within one budget, and what is over is given back."""

from __future__ import annotations

import json
import socket

import pytest
from hostile_client import KEY, Raw, request, statuses
from serving import NAME, engine_backend, quick, running, wait_until

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}).encode()
SETTINGS = quick(max_body_bytes=50_000, max_bodies_bytes=100_000, body_seconds=20)


@pytest.fixture(scope="module")
def server(tokenizer):
    with running(engine_backend(tokenizer), SETTINGS, keys=[KEY]) as found:
        yield found


def bodies_of(server):
    layer = server.app.middleware_stack
    while not hasattr(layer, "_bodies"):
        layer = layer.app
    return layer._bodies


def test_bodies_share_one_budget_and_give_it_back(server):
    raw = Raw(server)
    assert statuses(raw.ask("POST", CHAT, BODY)) == [200]
    bodies = bodies_of(server)
    wait_until(lambda: bodies.held == 0)
    waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
    for one in waiting:
        one.sendall(request("POST", CHAT, BODY + b" " * 49_000)[:-100])
    wait_until(lambda: bodies.held > 95_000)
    assert statuses(raw.ask("POST", CHAT, BODY + b" " * 20_000)) == [503]
    chunks = request("POST", CHAT, headers={"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
    assert statuses(raw(chunks + b"4000\r\n" + b" " * 0x4000 + b"\r\n", quiet=2)) == [503]
    assert statuses(raw.ask("POST", CHAT, BODY)) == [200]
    for one in waiting:
        one.close()
    wait_until(lambda: bodies.held == 0)
    assert statuses(raw.ask("POST", CHAT, BODY + b" " * 49_000)) == [200]
    wait_until(lambda: bodies.held == 0)


@pytest.mark.parametrize("body", [b"{", BODY[:-1] + b" " * 40_000, BODY.replace(b"Hi", b"Hi" * 20_000)])
def test_refused_bodies_give_it_back_too(server, body):
    assert statuses(Raw(server).ask("POST", CHAT, body)) == [400]
    wait_until(lambda: bodies_of(server).held == 0)
