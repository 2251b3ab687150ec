"""An engine that fails where none should: nobody waits for ever, and whoever runs the server is told."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import NAME, SETTINGS, engine_backend, running, wait_until

TALK = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 200, "ignore_eos": True}
TEXTS = {"model": NAME, "input": ["Hi"] * 20}


def ask(server, path, body=None):
    """Status and error code."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]["code"]


@pytest.fixture
def backend(tokenizer):
    """One that may be damaged by `damage(engine)` once it is loaded; `told` has what it said of its failure."""
    found = engine_backend(tokenizer)
    found.told = []
    found._on_failure = found.told.append
    return found


def damaged(backend, damage):
    load = backend._load

    def loaded():
        found = load()
        damage(found.engine)
        return found

    backend._load = loaded


def after(count, function, error):
    """`function`, but the call number `count` and all behind it raise."""
    calls = []

    def failing(*arguments):
        calls.append(1)
        if len(calls) >= count:
            raise error
        return function(*arguments)

    return failing


def no_plan(engine):
    scheduler = engine.continuous.scheduler
    scheduler.plan = after(5, scheduler.plan, AssertionError("/srv/secret"))


def no_step(engine):
    engine.step = after(5, engine.step, RuntimeError("/srv/secret"))


@pytest.mark.parametrize("damage", [no_plan, no_step])
def test_an_engine_that_cannot_go_on_ends_its_requests_and_says_so(backend, damage, caplog):
    damaged(backend, damage)
    with running(backend) as server, ThreadPoolExecutor(9) as clients:
        talks = [clients.submit(ask, server, "/v1/chat/completions", TALK) for _ in range(8)]
        texts = clients.submit(ask, server, "/v1/embeddings", TEXTS)
        for answer in [*talks, texts]:
            assert answer.result() in ((500, "engine_failed"), (503, "not_ready"), (200, None))
        assert (500, "engine_failed") in [answer.result() for answer in talks]
        wait_until(lambda: bool(backend.told))
        assert ask(server, "/health") == (503, "not_ready")
        assert ask(server, "/v1/chat/completions", TALK) == (503, "not_ready")
    assert len(backend.told) == 1
    assert sum("Traceback" in (record.exc_text or "") for record in caplog.records) < 5  # it does not spin


def test_a_failure_outside_a_step_is_one_too(backend):
    def damage(engine):
        engine.cancel = after(1, engine.cancel, AssertionError("a page is lost"))

    damaged(backend, damage)
    with running(backend) as server, ThreadPoolExecutor(2) as clients:
        talk = clients.submit(ask, server, "/v1/chat/completions", TALK)
        wait_until(lambda: bool(backend._owners))
        answers, index = next(iter(backend._owners.values()))
        backend._commands.put(lambda: backend._cancel(answers, index))
        assert talk.result() == (500, "engine_failed")
        wait_until(lambda: bool(backend.told))


def test_memory_that_is_not_there_ends_one_step_alone(backend):
    def damage(engine):
        continuous = engine.continuous
        continuous._carry_out = once(continuous._carry_out, MemoryError())

    damaged(backend, damage)
    with running(backend) as server:
        assert ask(server, "/v1/chat/completions", TALK) == (500, "engine_failed")
        assert ask(server, "/v1/chat/completions", TALK) == (200, None)
    assert not backend.told


def once(function, error):
    left = [error]

    def failing(*arguments):
        if left:
            raise left.pop()
        return function(*arguments)

    return failing


def test_embeddings_wait_in_the_same_queue_as_answers(tokenizer):
    backend = engine_backend(tokenizer)
    gate = threading.Event()
    load = backend._load

    def loaded():
        found = load()
        embed = found.embed

        def slow(prompts):
            for one in embed(prompts):
                gate.wait(20)
                yield one

        object.__setattr__(found, "embed", slow)
        return found

    backend._load = loaded
    most = SETTINGS.max_running + SETTINGS.max_queue
    with running(backend) as server, ThreadPoolExecutor(most) as clients:
        waiting = [clients.submit(ask, server, "/v1/embeddings", TEXTS) for _ in range(most)]
        wait_until(lambda: backend._live == most)
        assert ask(server, "/v1/embeddings", TEXTS) == (429, "queue_full")
        assert ask(server, "/v1/chat/completions", TALK) == (429, "queue_full")
        gate.set()
        assert {one.result() for one in waiting} == {(200, None)}
        assert backend._live == 0
