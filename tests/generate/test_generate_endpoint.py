"""A served model as a Generator, against a local server that speaks the protocol and misbehaves on order."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_api import Server
from herd.errors import EndpointError, InputError, SettingError, StorageError
from herd.generate import endpoint as endpoint_module
from herd.generate import served as served_module
from herd.generate.endpoint import Endpoint, to_wire
from herd.generate.protocol import Request, Sampling
from herd.generate.served import Served, ask_all
from herd.generate.settings import EndpointSettings
from herd.progress import Silent
from herd.text import Tokenizer, encode_prompt
from herd.text.message import Message, ToolCall
from herd.text.prompts import read_prompt

TOKENIZER = Tokenizer.train([])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    made = Server()
    yield made
    made.close()


@pytest.fixture
def slept():
    return []


def endpoint(server, slept, **changes):
    values = {"url": server.url, "model": "big", "concurrency": 2, "timeout_seconds": 5.0} | changes
    return Endpoint(EndpointSettings(**values), sleep=slept.append)


def questions(*texts, **sampling):
    return [([Message("user", text)], Sampling(**sampling)) for text in texts]


def test_one_question_on_the_wire(server, slept, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    reply = endpoint(server, slept).ask([Message("user", "hi")], Sampling(0.5, 0.9, 17, seed=3))
    assert (reply.message, reply.finish) == (Message("assistant", "echo hi"), "stop")
    path, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "big",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 17,
        "seed": 3,
        "stream": False,
    }
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_further_settings_are_sent_where_they_are_set(server, slept):
    how = Sampling(top_k=40, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.5, frequency_penalty=-0.5, stop="x")
    endpoint(server, slept).ask([Message("user", "hi")], how)
    body = server.seen[0][1]
    names = ("top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "stop")
    assert [body[name] for name in names] == [40, 0.1, 1.1, 0.5, -0.5, ["x"]]


@pytest.mark.parametrize("setting", [{"logit_bias": {3: 1.0}}, {"top_logprobs": 2}, {"prompt_logprobs": True}])
def test_what_cannot_be_asked_of_a_server_is_refused(server, slept, setting):
    with pytest.raises(SettingError, match=next(iter(setting))):
        endpoint(server, slept).ask([Message("user", "hi")], Sampling(**setting))
    assert server.seen == []


def test_stores_of_before_are_still_known(server, slept):
    """The hash of a question without later settings is the one that was written before there were any."""
    question = ([Message("user", "hi")], Sampling(0.5, 0.9, 17, (3,), 4))
    one = endpoint(server, slept)
    assert served_module._key(one, question) == "864f49646240f43cfa0132ce2b17dd97"
    other = (question[0], Sampling(0.5, 0.9, 17, (3,), 4, top_k=5))
    assert served_module._key(one, other) != "864f49646240f43cfa0132ce2b17dd97"


def test_no_key_none_sent(server, slept, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    endpoint(server, slept).ask([Message("user", "hi")], Sampling())
    assert "Authorization" not in server.headers[0]


def test_answers_come_in_the_order_of_the_questions_and_equal_ones_are_asked_once(server, slept):
    asked = questions(*"abcdefgh", "a")
    replies = ask_all(endpoint(server, slept, concurrency=4), asked, None)
    assert [reply.message.content for reply in replies] == [f"echo {letter}" for letter in "abcdefgha"]
    assert len(server.seen) == 8


BUSY = (429, {"Retry-After": "7"}, {"error": {"message": "slow down"}})
DOWN = (503, {}, b"<html>bad gateway</html>")


def test_refusals_that_may_pass_are_tried_again_with_the_servers_wait(server, slept):
    server.script = [BUSY, DOWN, "drop", (200, {}, b'{"choices": [')]
    reply = endpoint(server, slept).ask([Message("user", "hi")], Sampling())
    assert reply.message.content == "echo hi"
    assert slept[0] == pytest.approx(7.0, abs=0.5)  # the server's own
    assert [pause for pause in slept if pause in (1.0, 2.0, 4.0, 8.0, 16.0)] == [2.0, 4.0, 8.0]  # then doubling
    assert len(server.seen) == 5


def test_waits_are_bounded(server, slept):
    server.script = [(429, {"Retry-After": "86400"}, {})]
    endpoint(server, slept, longest_wait_seconds=30.0).ask([Message("user", "hi")], Sampling())
    assert slept == [pytest.approx(30.0, abs=0.5)]


def test_a_wait_may_be_a_date(server, slept):
    server.script = [(503, {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=20))}, {})]
    endpoint(server, slept).ask([Message("user", "hi")], Sampling())
    assert slept == [pytest.approx(20.0, abs=2)]


def test_a_wait_that_the_server_asks_for_holds_everybody(server, slept):
    """Not the thread that was refused alone: the others would be refused next, and count against us."""
    server.script = [BUSY]
    one = endpoint(server, slept)
    for _ in range(2):
        one.ask([Message("user", "hi")], Sampling())
    assert slept == [pytest.approx(7.0, abs=0.5)] * 2  # from the same moment: nobody really slept


def test_a_redirection_is_not_followed(server, slept, monkeypatch):
    """It would hand the key to whoever the first server names."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.script = [(302, {"Location": server.url + "/elsewhere"}, {})]
    with pytest.raises(EndpointError, match="302") as found:
        endpoint(server, slept).ask([Message("user", "hi")], Sampling())
    assert "moved" in found.value.mend
    assert len(server.seen) == 1


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_a_key_that_is_none_is_refused_at_once(server, slept, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(SettingError, match="printable"):
        endpoint(server, slept)


def test_an_answer_without_end_is_refused(server, slept, monkeypatch):
    monkeypatch.setattr(endpoint_module, "_LONGEST", 1000)
    server.answer = lambda body: "x" * 2000
    with pytest.raises(EndpointError, match="longer than 1000"):
        endpoint(server, slept).ask([Message("user", "hi")], Sampling())


def test_a_server_that_hangs_up_while_it_refuses(server, slept):
    server.script = [(400, {"Content-Length": "500"}, b"half")]
    with pytest.raises(EndpointError, match="400"):
        endpoint(server, slept, timeout_seconds=0.5).ask([Message("user", "hi")], Sampling())


def test_nothing_is_tried_again_once_it_is_given_up(server, slept):
    server.script = [DOWN] * 9
    with pytest.raises(EndpointError, match="failed 1 times"):
        endpoint(server, slept).ask([Message("user", "hi")], Sampling(), given_up=lambda: True)
    assert slept == []


def test_a_server_that_stays_down_ends_in_its_words(server, slept):
    server.script = [DOWN] * 3
    with pytest.raises(EndpointError, match="failed 3 times: 503") as found:
        endpoint(server, slept, retries=2).ask([Message("user", "hi")], Sampling())
    assert "goes on where it stopped" in found.value.mend


@pytest.mark.parametrize(
    ("status", "word", "mend"),
    [(401, "bad key", "OPENAI_API_KEY"), (404, "bad key", "/v1/models"), (400, "bad key", "max_tokens")],
)
def test_refusals_for_good_are_not_tried_again(server, slept, status, word, mend):
    server.script = [(status, {}, {"error": {"message": "bad key"}})]
    with pytest.raises(EndpointError, match=word) as found:
        endpoint(server, slept).ask([Message("user", "hi")], Sampling())
    assert mend in found.value.mend
    assert slept == []
    assert len(server.seen) == 1


@pytest.mark.parametrize("content", [{}, {"choices": []}, {"choices": [{"message": 3}]}, []])
def test_what_is_no_completion_is_said(server, slept, content):
    server.script = [(200, {}, content)]
    with pytest.raises(EndpointError, match="no chat completion"):
        endpoint(server, slept).ask([Message("user", "hi")], Sampling())


def test_nobody_listens(slept):
    with pytest.raises(EndpointError, match="refused"):
        Endpoint(EndpointSettings("http://127.0.0.1:9/v1", "big", retries=1), sleep=slept.append).ask(
            [Message("user", "hi")], Sampling()
        )


def test_requests_keep_their_pace(server, slept):
    slow = endpoint(server, slept, requests_per_minute=6.0)
    for _ in range(3):
        slow.ask([Message("user", "hi")], Sampling())
    assert len(slept) == 2
    assert 9 < slept[0] <= 10
    assert 19 < slept[1] <= 20  # from the same moment: nobody really slept


def test_settings_without_a_server_are_refused(slept):
    with pytest.raises(SettingError, match="url and its name"):
        Endpoint(EndpointSettings())
    for url in ("localhost:8000", "http://", "http://host:port/v1", "ftp://host/v1"):
        with pytest.raises(SettingError, match="url is"):
            EndpointSettings(url)


def test_a_killed_batch_asks_only_what_is_open(server, slept, tmp_path):
    store = tmp_path / "answers.jsonl"
    asked = questions(*"abcdef")
    server.script = [(200, {}, server.completion({"messages": [{"content": "early"}]}))] * 2
    server.script += [(400, {}, {"error": "no"})]
    with pytest.raises(EndpointError):
        ask_all(endpoint(server, slept, concurrency=1), asked, store)
    assert len(store.read_text().splitlines()) == 2
    with open(store, "a") as handle:
        handle.write('{"key": "cut sho')  # what a kill leaves
    server.seen.clear()
    replies = ask_all(endpoint(server, slept, concurrency=1), asked, store)
    assert [body["messages"][0]["content"] for _, body in server.seen] == ["c", "d", "e", "f"]
    assert [reply.message.content for reply in replies] == ["echo early"] * 2 + [f"echo {x}" for x in "cdef"]
    server.seen.clear()
    assert ask_all(endpoint(server, slept), asked, store) == replies
    assert server.seen == []
    ask_all(endpoint(server, slept), questions("a", seed=9), store)  # another seed is another question
    assert len(server.seen) == 1


def test_those_under_way_are_kept_when_it_is_interrupted(server, slept, tmp_path):
    """Ctrl-C while answers are waited for: they are written by whoever gets them."""

    class Interrupted(Silent):
        def update(self, *_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask_all(endpoint(server, slept, concurrency=3), questions(*"abcdef"), tmp_path / "s.jsonl", Interrupted())
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == len(server.seen) < 6


def test_a_store_that_cannot_be_written_is_said_before_anything_is_asked(server, slept, tmp_path):
    with pytest.raises(StorageError, match="cannot be kept"):
        ask_all(endpoint(server, slept), questions("a"), tmp_path)
    assert server.seen == []


def test_those_under_way_are_kept_when_one_fails(server, slept, tmp_path):
    server.completion = lambda body: [] if body["messages"][0]["content"] == "a" else Server.completion(server, body)
    with pytest.raises(EndpointError):
        ask_all(endpoint(server, slept, concurrency=4), questions(*"abcd"), tmp_path / "s.jsonl")
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == len(server.seen) - 1


def test_calls_and_their_results_on_the_wire(server, slept):
    call = Message("assistant", "", (ToolCall("add", {"a": 2}),))
    wire = to_wire([Message("user", "x"), call, Message("ipython", "4")])
    assert wire[1]["tool_calls"][0] == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 2}'},
    }
    assert wire[2] == {"role": "tool", "content": "4", "tool_call_id": "call_1"}
    server.answer = lambda body: {"content": None, "tool_calls": wire[1]["tool_calls"]}
    assert endpoint(server, slept).ask([Message("user", "x")], Sampling()).message == call


def test_served_speaks_the_generator_protocol(server, slept):
    served = Served(endpoint(server, slept), TOKENIZER)
    prompts = [encode_prompt(TOKENIZER, [Message("system", "s"), Message("user", text)]) for text in ("one", "zwei")]
    first, second = served.generate([Request(tuple(prompt)) for prompt in prompts])
    assert TOKENIZER.decode(first.tokens, skip_special=True) == "echo one"
    assert (first.finish, first.tokens[-1]) == ("stop", TOKENIZER.eot)
    assert TOKENIZER.decode(second.tokens, skip_special=True) == "echo zwei"
    assert server.seen[0][1]["messages"][0] == {"role": "system", "content": "s"}
    assert first.text is None
    (stopped,) = served.generate([Request(tuple(prompts[0]), Sampling(stop="x"))])
    assert stopped.text == "echo one"
    server.finish = "length"
    (cut,) = served.generate([Request(tuple(prompts[0]), Sampling(max_tokens=4))])
    assert (cut.finish, len(cut.tokens)) == ("length", 4)


text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20).map(str.strip)
message = st.one_of(
    st.builds(Message, st.sampled_from(["user", "ipython", "assistant"]), text),
    st.builds(lambda name, n: Message("assistant", "", (ToolCall(name, {"n": n}),)), st.just("f"), st.integers()),
)


@given(st.lists(message, min_size=1, max_size=5), st.booleans())
def test_a_prompt_of_ids_reads_back_as_its_messages(messages, system):
    messages = [Message("system", "Be brief.")] * system + messages
    assert read_prompt(TOKENIZER, encode_prompt(TOKENIZER, messages)) == messages


@pytest.mark.parametrize("spoil", [lambda p: p[1:], lambda p: [], lambda p: p[:-4], lambda p: [*p, TOKENIZER.eot]])
def test_ids_that_are_no_prompt_are_refused(spoil):
    prompt = encode_prompt(TOKENIZER, [Message("user", "hi")])
    with pytest.raises(InputError):
        read_prompt(TOKENIZER, spoil(prompt))
