"""What `/metrics` counts is what was answered; when readers are woken, on a clock of the test's own."""

from __future__ import annotations

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import NAME, SETTINGS, Scripted, engine_backend, running
from test_serve_limits import ask

from herd.serve.metrics import Histogram
from herd.serve.pacing import PACE, Waker

ASK = {"model": NAME, "messages": [{"role": "user", "content": "hello " * 20}], "max_tokens": 10, "ignore_eos": True}


def samples(server):
    page = ask(server, "/metrics", None, "GET")[2].decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_counters_are_those_of_the_answers(tokenizer):
    with running(engine_backend(tokenizer), SETTINGS) as server:
        usages = [json.loads(ask(server, body=ASK | {"n": n})[2])["usage"] for n in (1, 2)]
        ask(server, body=ASK | {"stream": True})
        assert ask(server, body=ASK | {"model": "other"})[0] == 404
        found = samples(server)
    n_tokens = sum(usage["completion_tokens"] for usage in usages) + 10
    assert n_tokens == 40
    assert found["herd_generated_tokens_total",] == n_tokens
    assert found["herd_requests_total", "length"] == 4
    assert found["herd_time_to_first_token_seconds_count",] == 4
    assert found["herd_inter_token_seconds_count",] == n_tokens - 4
    assert found["herd_request_seconds_count",] == 4
    assert found["herd_responses_total", "/v1/chat/completions", "200"] == 3
    assert found["herd_responses_total", "/v1/chat/completions", "404"] == 1
    assert found["herd_cached_tokens_total",] > 0
    assert found["herd_cache_pages",] == 8192 / 16
    assert found["herd_cache_pages_used",] == found["herd_requests_running",] == found["herd_requests_waiting",] == 0


def test_what_fails_is_counted_as_failed(tokenizer):
    with running(Scripted(tokenizer, [RuntimeError("secret")]), SETTINGS) as server:
        answer = ask(server, body=ASK)
        assert answer[0] == 500
        assert b"secret" not in answer[2]
        assert samples(server)["herd_requests_total", "failed"] == 1


def test_a_histogram_is_cumulative():
    histogram = Histogram((1.0, 2.0))
    for seconds, times in ((0.5, 1), (1.0, 2), (1.5, 1), (9.0, 3)):
        histogram.add(seconds, times)
    (family,) = [histogram.family("x", "about")]
    values = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert (values["1.0"], values["2.0"], values["+Inf"]) == (3, 4, 7)
    assert values["x_sum"] == pytest.approx(0.5 + 2 + 1.5 + 27)


class Clock:
    """As much of an event loop as a waker needs; time passes when the test says so."""

    def __init__(self):
        self.now, self.timers = 100.0, []

    def time(self):
        return self.now

    def call_later(self, seconds, call):
        timer = Timer(self.now + seconds, call)
        self.timers.append(timer)
        return timer

    def pass_to(self, now):
        self.now = now
        due = [timer for timer in self.timers if timer.at <= now and not timer.cancelled]
        self.timers = [timer for timer in self.timers if timer.at > now]
        for timer in due:
            timer.call()


class Timer:
    def __init__(self, at, call):
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self):
        self.cancelled = True


class Reader:
    def __init__(self):
        self.woken = 0

    def wake(self):
        self.woken += 1


def test_fast_steps_are_told_together_and_urgent_ones_at_once():
    clock, a, b = Clock(), Reader(), Reader()
    waker = Waker(clock)
    waker.tell({a: False})
    assert a.woken == 1  # nobody was told anything for long
    for step in range(1, 5):
        clock.pass_to(100 + step * PACE / 5)
        waker.tell({a: False})
    waker.tell({b: True})
    assert (a.woken, b.woken) == (1, 1)
    clock.pass_to(100 + PACE)
    assert (a.woken, b.woken) == (2, 1)
    clock.pass_to(100 + 3 * PACE)
    waker.tell({a: False, b: False})
    assert (a.woken, b.woken) == (3, 2)
    assert not [timer for timer in clock.timers if not timer.cancelled]
