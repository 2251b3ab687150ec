"""HTTP that is wrong, lies, or never ends; and who may ask at all."""

from __future__ import annotations

import json

import pytest
from hostile_client import KEY, request, statuses
from serving import NAME

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}).encode()
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n".encode()
HIDDEN = request("GET", "/v1/models")


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        HEAD + b"Content-Length: 5\r\nContent-Length: 60\r\n\r\nabcde" + HIDDEN,
        HEAD + b"Content-Length: +5\r\n\r\nabcde" + HIDDEN,
        HEAD + b"Content-Length: -5\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n" + HIDDEN,
        HEAD.replace(b"Host:", b"Host :") + b"\r\n" + HIDDEN,
        b"GET /h\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    ],
)
def test_what_two_parsers_could_read_differently_is_refused_and_nothing_behind_it_is_answered(raw, data):
    assert statuses(raw(data)) == [400]


@pytest.mark.parametrize("line", ["CONNECT elsewhere:443 HTTP/1.1", "PRI * HTTP/2.0", "GET elsewhere HTTP/1.1"])
def test_what_is_no_request_for_a_page_here_is_refused(raw, line):
    found = statuses(raw(f"{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(), quiet=1))
    assert found
    assert all(400 <= status < 500 for status in found)


def test_requests_behind_garbage_are_lost_and_the_server_goes_on(raw):
    answer = raw(request("GET", "/health", headers={"Connection": "keep-alive"}) + b"\x00\xff\r\n\r\n" + HIDDEN)
    assert set(statuses(answer)) <= {200, 400}
    assert NAME.encode() not in answer.partition(b"HTTP/1.1 400")[2]
    assert statuses(raw.ask("GET", "/health")) == [200]


@pytest.mark.parametrize("head", [b"X: " + b"y" * 2**20, b"X: y\r\n" * 100_000])
def test_a_head_without_end_is_cut_off(raw, head):
    assert statuses(raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + head)) in ([431], [400], [])


def test_a_head_that_does_not_come_is_given_up(raw):
    assert statuses(raw(b"GET /health HTTP/1.1\r\nHost: loc")) == [408]
    assert statuses(raw(b"")) == [408]


def test_a_body_that_does_not_come_is_given_up(raw):
    assert statuses(raw(request("POST", CHAT, BODY)[:-3])) == [408]
    slow = HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\n"
    assert statuses(raw(slow)) == [408]


def test_a_body_over_the_limit_is_refused_by_its_length_and_by_its_bytes(raw):
    assert statuses(raw(HEAD + b"Content-Length: 99999999\r\n\r\n", quiet=1)) == [413]
    assert statuses(raw.ask("POST", CHAT, BODY, Content_Length="9" * 400)) == [400]
    chunks = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    answer = raw(HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks * 20)
    assert statuses(answer)[:1] in ([413], [])  # the connection may be reset before it is read


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "", "[evil"],
)
def test_names_that_others_can_own_are_not_loopback(raw, host):
    assert statuses(raw.ask("GET", "/health", Host=host)) == [403]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "127.1.2.3", "[::1]:80"])
def test_names_of_loopback_are(raw, host):
    assert statuses(raw.ask("GET", "/health", Host=host)) == [200]


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://localhost:1", "http://[", "http://a@localhost"]
)
def test_pages_of_other_sites_may_not_ask(raw, origin):
    assert statuses(raw.ask("POST", CHAT, BODY, Origin=origin)) == [403]
    assert b"access-control-allow-origin" not in raw.ask("OPTIONS", CHAT, Origin=origin).lower()


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer x", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer é"]
)
def test_without_the_key_nothing_but_health_and_the_page_is_told(raw, given):
    for path in ("/v1/models", "/metrics", "/openapi.json", "/health/../metrics", "//health", "/anything"):
        answer = raw.ask("GET", path, Authorization=given)
        assert statuses(answer) in ([401], [404]), path
        assert NAME.encode() not in answer
    assert statuses(raw.ask("GET", "/health", Authorization=given)) == [200]


def test_nothing_that_a_client_chooses_becomes_a_label_of_the_metrics(raw):
    for number in range(20):
        raw.ask("GET", f"/nowhere/{number}")
        raw.ask(f"NOSUCH{number}", "/v1/models")
    page = raw.ask("GET", "/metrics").decode()
    assert "nowhere" not in page
    assert "NOSUCH" not in page
    assert KEY not in page
    assert sum(line.startswith("herd_responses_total") for line in page.splitlines()) < 40


def test_a_balancer_may_ask_for_the_head_alone_and_nobody_is_sent_elsewhere(raw):
    assert statuses(raw.ask("HEAD", "/health")) == [200]
    assert raw.ask("HEAD", "/health").endswith(b"\r\n\r\n")
    assert b"location" not in raw.ask("GET", "/health/", Host="localhost:1").lower()


def test_of_a_union_the_error_that_says_most_is_told(raw):
    for prompt, said in (([1] * 3 + [-1], b"prompt[3]"), (["x"] * 20_000, b"16384")):
        answer = raw.ask("POST", "/v1/completions", json.dumps({"model": NAME, "prompt": prompt}).encode())
        assert statuses(answer) == [400]
        assert said in answer
