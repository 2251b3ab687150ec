"""The engine in its thread: clients that leave, steps that fail, full queues, loading and stopping."""

from __future__ import annotations

import http.client
import json
import socket
import threading

import pytest
from serving import NAME, SETTINGS, engine_backend, quick, running, wait_until
from test_serve_limits import ask, code, posted

from herd.errors import ArtifactError
from herd.serve.engine_backend import EngineBackend

LONG = {"model": NAME, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 900, "ignore_eos": True}


@pytest.fixture
def backend(tokenizer):
    return engine_backend(tokenizer)


def engine_of(backend):
    return backend._loaded.engine


def settled(backend):
    """Nothing runs or waits, and no page is lost."""
    wait_until(lambda: not engine_of(backend).busy and backend._live == 0)
    scheduler = engine_of(backend).continuous.scheduler
    scheduler.check()
    return scheduler.pool.available == scheduler.pool.count and not backend._owners


@pytest.mark.parametrize("changes", [{"stream": True}, {}, {"n": 3}, {"stream": True, "n": 2}], ids=str)
def test_what_a_client_asked_for_ends_when_it_leaves(backend, changes):
    steps = slowed(backend)
    with running(backend) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(posted(LONG | changes))
            wait_until(lambda: len(steps) > 3)
        wait_until(lambda: not engine_of(backend).busy)
        assert len(steps) < 900
        assert settled(backend)
        page = ask(server, "/metrics", None, "GET")[2].decode()
        assert f'herd_requests_total{{outcome="cancelled"}} {float(changes.get("n", 1))}' in page


def slowed(backend, seconds=0.005):
    """Let each step take a while, so that a client can leave in the middle; the list of steps grows."""
    steps, load = [], backend._load

    def loaded():
        found = load()
        step = found.engine.step

        def slow_step():
            steps.append(None)
            threading.Event().wait(seconds)
            return step()

        found.engine.step = slow_step
        return found

    backend._load = loaded
    return steps


def failing(backend, error, at):
    """Let the step number `at` fail as the engine's own do: its requests end."""
    load = backend._load

    def loaded():
        found = load()
        continuous, count = found.engine.continuous, [0]
        carry_out = continuous._carry_out

        def fails(plan):
            count[0] += 1
            if count[0] == at:
                raise error
            return carry_out(plan)

        continuous._carry_out = fails
        return found

    backend._load = loaded


@pytest.mark.parametrize("stream", [False, True])
def test_a_step_that_fails_ends_its_requests_and_no_others(backend, stream):
    damaged = ArtifactError("the model's logits are not finite numbers", where="/srv/secret", mend="take another")
    failing(backend, damaged, at=4)
    with running(backend) as server:
        status, _, content = ask(server, body=LONG | {"stream": stream})
        last = content.split(b"\n\n")[-3].removeprefix(b"data: ") if stream else content
        error = json.loads(last)["error"]
        assert status == (200 if stream else 500)
        assert "not finite" in error["message"]
        assert error["code"] == "engine_failed"
        assert b"secret" not in content
        assert ask(server, body=LONG | {"max_tokens": 3})[0] == 200
        assert settled(backend)


def test_a_response_that_fails_ends_with_its_own_event(backend):
    failing(backend, ArtifactError("the model's logits are not finite numbers"), at=4)
    with running(backend) as server:
        body = {"model": NAME, "input": "hello", "stream": True, "ignore_eos": True}
        events = ask(server, "/v1/responses", body)[2].strip().split(b"\n\n")
    last = json.loads(events[-1].partition(b"data: ")[2])
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert "not finite" in last["response"]["error"]["message"]
    assert last["sequence_number"] == len(events) - 1


def test_a_bug_in_a_step_is_told_without_its_words(backend):
    failing(backend, ValueError("/srv/secret is wrong"), at=2)
    with running(backend) as server:
        answer = ask(server, body=LONG)
        assert (answer[0], code(answer)) == (500, "engine_failed")
        assert b"secret" not in answer[2]
        answer = ask(server, "/v1/responses", {"model": NAME, "input": "x", "max_output_tokens": 2})
        assert answer[0] == 200


def test_a_full_queue_refuses_at_once(tokenizer):
    settings = quick(max_running=1, max_queue=1)
    backend = engine_backend(tokenizer, settings)
    steps = slowed(backend)
    with running(backend, settings) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        for client in clients:
            client.sendall(posted(LONG))
        wait_until(lambda: backend._live == 2 and steps)
        answer = ask(server)
        assert (answer[0], code(answer)) == (429, "queue_full")
        assert int(answer[1]["retry-after"]) > 0
        several = ask(server, body=LONG | {"n": 3})
        assert several[0] == 429
        for client in clients:
            client.close()
        assert settled(backend)
        assert ask(server, body=LONG | {"max_tokens": 2})[0] == 200


def test_while_the_model_is_loaded_the_server_says_so(tokenizer):
    gate, ready = threading.Event(), []
    backend = engine_backend(tokenizer)
    load = backend._load

    def waits():
        gate.wait(30)
        return load()

    slow = EngineBackend(waits, most=10, on_ready=lambda: ready.append(True))
    with running(slow, wait=False) as server:
        for path, method in (("/health", "GET"), ("/v1/models", "GET"), ("/v1/chat/completions", "POST")):
            answer = ask(server, path, LONG if method == "POST" else None, method)
            assert (answer[0], code(answer)) == (503, "not_ready")
            assert answer[1]["retry-after"]
        assert ask(server, "/health/live", None, "GET")[0] == 200
        gate.set()
        wait_until(lambda: ready)
        assert ask(server, "/health/ready", None, "GET")[0] == 200


def test_a_model_that_cannot_be_loaded_is_told_of(tokenizer):
    told = []

    def fails():
        raise ArtifactError("no such model", where="x")

    with running(EngineBackend(fails, most=1, on_failure=told.append), wait=False):
        wait_until(lambda: told)
    assert isinstance(told[0], ArtifactError)


def test_what_runs_is_finished_when_the_server_is_told_to_stop(backend):
    steps = slowed(backend, 0.002)
    answers = []
    with running(backend) as server:
        body = LONG | {"max_tokens": 100, "seed": 1}
        client = threading.Thread(target=lambda: answers.append(ask(server, body=body)))
        client.start()
        wait_until(lambda: len(steps) > 3)
        held = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        held.connect()
        server.stop()
        client.join(30)
    status, _, content = answers[0]
    assert status == 200
    assert json.loads(content)["usage"]["completion_tokens"] == 100


def test_what_takes_too_long_to_finish_is_cut_when_the_server_stops(tokenizer):
    settings = quick(drain_seconds=1)
    backend = engine_backend(tokenizer, settings)
    steps = slowed(backend, 0.02)
    with running(backend, settings) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(posted(LONG | {"stream": True}))
        wait_until(lambda: len(steps) > 3)
        server.stop()
    assert len(steps) < 900
    client.close()


def test_the_default_length_of_an_answer_is_the_settings(tokenizer):
    settings = quick(default_max_tokens=5)
    with running(engine_backend(tokenizer, settings), settings) as server:
        body = {key: value for key, value in LONG.items() if key != "max_tokens"}
        assert json.loads(ask(server, body=body)[2])["usage"]["completion_tokens"] == 5


def test_embeddings_do_not_depend_on_their_neighbours_and_match_the_network(tokenizer, backend):
    import torch
    from serving import tiny_config

    from stored_models import make_model

    with running(backend) as server:
        texts = ["hello fox", "the quick brown dog is lazy today. " * 30]
        answer = ask(server, "/v1/embeddings", {"model": NAME, "input": texts})
        alone = ask(server, "/v1/embeddings", {"model": NAME, "input": texts[1]})
    vectors = [one["embedding"] for one in json.loads(answer[2])["data"]]
    assert json.loads(alone[2])["data"][0]["embedding"] == vectors[1]
    model = make_model(tiny_config(tokenizer))
    for text, vector in zip(texts, vectors, strict=True):
        ids = [tokenizer.bos, *tokenizer.encode(text)]
        with torch.inference_mode():
            mean = model(torch.tensor([ids]))[0].mean(dim=0)
        assert torch.allclose(mean / mean.norm(), torch.tensor(vector), atol=1e-5)


def test_settings_that_mean_nothing_are_refused():
    from herd.errors import SettingError

    for changes in ({"port": 70_000}, {"name": ""}, {"max_running": 0}, {"body_seconds": -1}):
        with pytest.raises(SettingError):
            quick(**changes)
    assert SETTINGS.is_loopback
    assert not quick(host="0.0.0.0").is_loopback


def test_rows_of_the_embedding_beyond_the_tokenizer_s_ids_say_nothing(tokenizer):
    from dataclasses import replace

    from serving import tiny_config

    from herd.serve.loading import ModelSettings, make_ready
    from stored_models import make_model

    model = make_model(replace(tiny_config(tokenizer), vocab_size=4 * tokenizer.vocab_size))
    ready = make_ready(model, tokenizer, ModelSettings(path=None, cache_tokens=2048), SETTINGS)
    with running(EngineBackend(lambda: ready, most=8)) as server:
        for changes in ({}, {"logprobs": True, "top_logprobs": 5}, {"stream": True}):
            assert ask(server, body=LONG | {"max_tokens": 40, "seed": 1} | changes)[0] == 200
