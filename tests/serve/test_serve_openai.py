"""OpenAI's official Python client against the server: what people's programs do."""

from __future__ import annotations

import json

import openai
import pytest
from serving import NAME, Scripted, running

from herd.serve.wire.chat import ChatChunk, ChatCompletion
from herd.serve.wire.completions import TextCompletion
from herd.serve.wire.responses import ResponseBody

ASK = [{"role": "user", "content": "How is the weather in Bern?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
CALL = '{"type": "function", "name": "weather", "parameters": {"town": "Bern"}}'


@pytest.fixture
def scripted(tokenizer):
    """A client of a server that gives the replies it is told; `ask(replies)` enters it."""
    entered = []

    def ask(replies, **options):
        backend = Scripted(tokenizer, replies, **options)
        context = running(backend)
        entered.append(context)
        server = context.__enter__()
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        entered.append(client)
        return client, backend

    yield ask
    for one in reversed(entered):
        one.__exit__(None, None, None)


def chunks_of(stream):
    chunks = list(stream)
    for chunk in chunks:
        ChatChunk.model_validate(chunk.to_dict())
    return chunks


def text_of(chunks, index=0):
    return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices if c.index == index)


def test_models(client):
    (model,) = client.models.list().data
    assert model.id == NAME
    assert client.models.retrieve(NAME).max_model_len == 1024


def test_a_seed_gives_the_same_answer_whole_and_streamed(client):
    how = {"model": NAME, "messages": ASK, "max_tokens": 24, "seed": 5, "temperature": 0.8}
    whole = client.chat.completions.create(**how)
    ChatCompletion.model_validate(whole.to_dict())
    again = client.chat.completions.create(**how)
    chunks = chunks_of(client.chat.completions.create(**how, stream=True))
    assert whole.choices[0].message.content == again.choices[0].message.content == text_of(chunks)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 24
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "length"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    other = client.chat.completions.create(**how | {"seed": 6})
    assert other.choices[0].message.content != whole.choices[0].message.content


def test_without_a_seed_answers_differ(client):
    said = {
        client.chat.completions.create(model=NAME, messages=ASK, max_tokens=24).choices[0].message.content
        for _ in range(3)
    }
    assert len(said) == 3


def test_usage_tells_what_was_known_of_the_prompt(client):
    how = {"model": NAME, "messages": [{"role": "user", "content": "The fox says hello. " * 12}], "max_tokens": 2}
    first = client.chat.completions.create(**how)
    chunks = chunks_of(client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True}))
    usage = chunks[-1].usage
    assert chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert usage.prompt_tokens == first.usage.prompt_tokens
    assert usage.total_tokens == usage.prompt_tokens + 2
    known = usage.prompt_tokens_details.cached_tokens
    assert 0 < known < usage.prompt_tokens
    assert known % 16 == 0


def test_n_answers_come_side_by_side(client):
    how = {"model": NAME, "messages": ASK, "max_tokens": 12, "seed": 1, "n": 3}
    whole = client.chat.completions.create(**how)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert whole.usage.completion_tokens == 36
    chunks = chunks_of(client.chat.completions.create(**how, stream=True))
    assert [text_of(chunks, index) for index in range(3)] == texts
    alone = client.chat.completions.create(**how | {"n": 1})
    assert alone.choices[0].message.content == texts[0]


def test_logprobs_of_each_token(client):
    how = {"model": NAME, "messages": ASK, "max_tokens": 6, "seed": 1, "logprobs": True, "top_logprobs": 3}
    entries = client.chat.completions.create(**how).choices[0].logprobs.content
    assert len(entries) == 6
    for entry in entries:
        assert entry.logprob < 0
        assert len(entry.top_logprobs) == 3
        assert entry.logprob <= entry.top_logprobs[0].logprob
        assert bytes(entry.bytes).decode(errors="replace") == entry.token
    chunks = chunks_of(client.chat.completions.create(**how, stream=True))
    streamed = [one for c in chunks for choice in c.choices if choice.logprobs for one in choice.logprobs.content]
    assert [(e.token, e.logprob) for e in streamed] == [(e.token, e.logprob) for e in entries]


def test_greedy_answers_are_the_likeliest_tokens(client):
    how = {"model": NAME, "messages": ASK, "max_tokens": 6, "temperature": 0, "logprobs": True, "top_logprobs": 1}
    entries = client.chat.completions.create(**how).choices[0].logprobs.content
    assert [entry.token for entry in entries] == [entry.top_logprobs[0].token for entry in entries]


def test_stop_texts_end_an_answer_and_are_not_shown(scripted):
    client, backend = scripted(["One, two, three."])
    how = {"model": NAME, "messages": ASK, "stop": [" two", "xyz"]}
    # The scripted backend does not stop by itself: what is shown is the server's own doing.
    assert client.chat.completions.create(**how).choices[0].message.content == "One,"
    assert text_of(chunks_of(client.chat.completions.create(**how, stream=True))) == "One,"
    assert backend.asked[0].sampling.stop == (" two", "xyz")


def test_what_is_set_reaches_the_engine(scripted, tokenizer):
    client, backend = scripted(["ok"])
    client.chat.completions.create(
        model=NAME,
        messages=ASK,
        temperature=0.3,
        top_p=0.8,
        max_completion_tokens=7,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"5": 3, "7": -100},
        seed=-3,
        extra_body={"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.2, "stop_token_ids": [9]},
    )
    how = backend.asked[0].sampling
    assert (how.temperature, how.top_p, how.max_tokens, how.seed) == (0.3, 0.8, 7, -3)
    assert (how.presence_penalty, how.frequency_penalty, how.repetition_penalty) == (0.5, -0.5, 1.2)
    assert (how.top_k, how.min_p, how.logit_bias) == (4, 0.1, ((5, 3.0), (7, -100.0)))
    assert how.stop_ids == (*tokenizer.stop_ids, 9)


@pytest.mark.parametrize("tagged", [True, False])
def test_a_tool_is_called(scripted, tokenizer, tagged):
    reply = [tokenizer.python_tag, CALL, tokenizer.eom] if tagged else [CALL]
    client, backend = scripted([reply])
    how = {"model": NAME, "messages": ASK, "tools": [WEATHER]}
    choice = client.chat.completions.create(**how).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == {"town": "Bern"}
    assert "weather" in tokenizer.decode(backend.asked[0].prompt)

    chunks = chunks_of(client.chat.completions.create(**how, stream=True))
    deltas = [d for c in chunks for choice in c.choices for d in choice.delta.tool_calls or ()]
    assert deltas[0].id
    assert (deltas[0].index, deltas[0].function.name, deltas[0].function.arguments) == (0, "weather", "")
    assert json.loads("".join(d.function.arguments or "" for d in deltas)) == {"town": "Bern"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert text_of(chunks) == ""


def test_the_client_puts_streamed_calls_together(scripted):
    client, _ = scripted([f"Let me see. {CALL}; {CALL.replace('Bern', 'Chur')}"])
    with client.chat.completions.stream(model=NAME, messages=ASK, tools=[WEATHER]) as stream:
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert [json.loads(c.function.arguments)["town"] for c in message.tool_calls] == ["Bern", "Chur"]
    assert message.content.strip() == "Let me see."
    assert len({call.id for call in message.tool_calls}) == 2


def test_without_parallel_calls_the_first_one_ends_the_answer(scripted):
    client, backend = scripted([f"{CALL}; {CALL}; and more"])
    how = {"model": NAME, "messages": ASK, "tools": [WEATHER], "parallel_tool_calls": False}
    choice = client.chat.completions.create(**how).choices[0]
    assert len(choice.message.tool_calls) == 1
    assert choice.finish_reason == "tool_calls"
    assert backend.cancelled == [0]
    deltas = [
        d
        for c in chunks_of(client.chat.completions.create(**how, stream=True))
        for choice in c.choices
        for d in choice.delta.tool_calls or ()
    ]
    assert {d.index for d in deltas} == {0}


def test_no_tool_is_called_where_none_may_be(scripted, tokenizer):
    client, backend = scripted([CALL])
    choice = client.chat.completions.create(model=NAME, messages=ASK, tools=[WEATHER], tool_choice="none").choices[0]
    assert choice.message.tool_calls is None
    assert choice.message.content == CALL
    assert (tokenizer.python_tag, -100.0) in backend.asked[0].sampling.logit_bias
    assert "weather of a town" not in tokenizer.decode(backend.asked[0].prompt)


def test_a_function_that_nobody_offered_is_text(scripted, tokenizer):
    call = CALL.replace("weather", "rm")
    client, _ = scripted([[tokenizer.python_tag, call, tokenizer.eom]])
    choice = client.chat.completions.create(model=NAME, messages=ASK, tools=[WEATHER]).choices[0]
    assert choice.finish_reason == "stop"
    assert json.loads(choice.message.content)["name"] == "rm"


def test_parallel_calls_and_their_results_are_written_in_pairs(scripted, tokenizer):
    client, backend = scripted(["Fine."])
    calls = [
        {"id": f"c{i}", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"town": town})}}
        for i, town in enumerate(("Bern", "Chur"))
    ]
    client.chat.completions.create(
        model=NAME,
        tools=[WEATHER],
        messages=[
            *ASK,
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c1", "content": "snow in Chur"},
            {"role": "tool", "tool_call_id": "c0", "content": [{"type": "text", "text": "sun in Bern"}]},
        ],
    )
    prompt = tokenizer.decode(backend.asked[0].prompt)
    places = [prompt.rindex(text) for text in ('"Bern"', "sun in Bern", '"Chur"', "snow in Chur")]
    assert places == sorted(places)


def test_completions_of_texts_and_ids(client, tokenizer):
    ids = [tokenizer.bos, *tokenizer.encode("The quick brown")]
    how = {"model": NAME, "max_tokens": 8, "seed": 3}
    of_text = client.completions.create(prompt="The quick brown", **how)
    TextCompletion.model_validate(of_text.to_dict())
    of_ids = client.completions.create(prompt=ids, **how)
    several = client.completions.create(prompt=["The quick brown", "hello"], n=2, **how)
    assert of_text.choices[0].text == of_ids.choices[0].text == several.choices[0].text
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    streamed = "".join(c.choices[0].text for c in client.completions.create(prompt=ids, stream=True, **how))
    assert streamed == of_text.choices[0].text


def test_echoed_prompts_tell_their_logprobs(client, tokenizer):
    ids = tokenizer.encode("The quick brown fox")
    how = {"model": NAME, "echo": True, "logprobs": 1, "seed": 1}
    choice = client.completions.create(prompt=ids, max_tokens=1, **how).choices[0]
    assert len(choice.logprobs.tokens) == len(ids) + 1
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.top_logprobs[0] is None
    for token, value, top in zip(
        choice.logprobs.tokens[1:], choice.logprobs.token_logprobs[1:], choice.logprobs.top_logprobs[1:], strict=True
    ):
        assert top[token] == value
        assert max(top.values()) >= value
    nothing = client.completions.create(prompt=ids, max_tokens=0, **how).choices[0]
    assert nothing.text == "The quick brown fox"
    assert nothing.logprobs.token_logprobs == choice.logprobs.token_logprobs[:-1]
    texts = [tokenizer.decode([i]) for i in ids]
    assert nothing.logprobs.text_offset == [len("".join(texts[:i])) for i in range(len(ids))]


def test_embeddings_are_unit_vectors_and_depend_on_the_text(client):
    import numpy as np

    found = client.embeddings.create(model=NAME, input=["hello fox", "hello dog", "hello fox"])  # base64 on the wire
    a, b, c = (np.array(one.embedding) for one in found.data)
    assert np.allclose([a @ a, b @ b], 1, atol=1e-5)
    assert np.array_equal(a, c)
    assert not np.allclose(a, b, atol=1e-3)
    plain = client.embeddings.create(model=NAME, input="hello fox", encoding_format="float").data[0].embedding
    assert np.allclose(plain, a, atol=1e-6)


def test_responses_whole_and_streamed(client):
    how = {
        "model": NAME,
        "input": "Hello?",
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "extra_body": {"seed": 2},
    }
    whole = client.responses.create(**how)
    ResponseBody.model_validate(whole.to_dict())
    assert whole.status == "incomplete"
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage.output_tokens == 9
    events = list(client.responses.create(**how, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text == events[-1].response.output_text


def test_responses_call_functions(scripted, tokenizer):
    client, backend = scripted([f"Let me see. {CALL}", "It is sunny."])
    tool = {"type": "function", **WEATHER["function"]}
    with client.responses.stream(model=NAME, input=ASK, tools=[tool]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["message", "function_call"]
    assert final.output[0].content[0].text.strip() == "Let me see."
    call = final.output[1]
    assert (call.name, json.loads(call.arguments)) == ("weather", {"town": "Bern"})
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == "response.completed"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    sent = [item.to_dict() for item in final.output]
    second = client.responses.create(model=NAME, input=[*ASK, *sent, result], tools=[tool])
    assert second.output_text == "It is sunny."
    assert "sunny" in tokenizer.decode(backend.asked[-1].prompt)


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"model": "gpt-4o"}, 404, "model_not_found", "model"),
        ({"temperature": -1}, 400, "invalid_request", "temperature"),
        ({"n": 1000}, 400, None, "n"),
        ({"stop": ["a"] * 17}, 400, None, "stop"),
        ({"logit_bias": {"99999": 1}}, 400, None, "logit_bias"),
        ({"top_logprobs": 3}, 400, None, "top_logprobs"),
        ({"messages": []}, 400, "invalid_request", "messages"),
        ({"messages": [{"role": "user", "content": "fox " * 2000}]}, 400, "context_length_exceeded", "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "7"}]}, 400, None, "messages[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            "unsupported_content",
            "messages[0].content[0]",
        ),
        (
            {"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}},
            400,
            "unsupported_parameter",
            None,
        ),
        ({"functions": [{"name": "f"}]}, 400, "unsupported_parameter", "functions"),
        ({"tools": [WEATHER, WEATHER]}, 400, None, "tools"),
        ({"tool_choice": "required"}, 400, None, "tool_choice"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_errors_say_what_is_wrong_in_openai_s_form(client, changes, status, code, param):
    body = {"model": NAME, "messages": ASK} | changes
    with pytest.raises(openai.APIStatusError) as raised:
        client.post("/chat/completions", body=body, cast_to=object)
    error = raised.value
    assert error.status_code == status
    assert error.body["message"]
    assert error.type == ("not_found_error" if status == 404 else "invalid_request_error")
    assert code is None or error.code == code
    assert param is None or error.param == param


def test_a_prompt_that_is_too_long_says_how_long_it_may_be(client):
    with pytest.raises(openai.BadRequestError, match="1023 is the most"):
        client.completions.create(model=NAME, prompt="fox " * 2000)


def test_what_has_no_effect_says_so(client):
    raw = client.chat.completions.with_raw_response.create(
        model=NAME, messages=ASK, max_tokens=5000, extra_body={"wibble": 1, "user": "me", "store": False}
    )
    said = raw.parse().warnings
    assert len(said) == 2
    assert "wibble" in said[0]
    assert "5000" in said[1]
    assert raw.headers["x-herd-warnings"] == "; ".join(said)
    chunks = list(client.chat.completions.create(model=NAME, messages=ASK, stream=True, extra_body={"wibble": 1}))
    assert chunks[0].warnings == said[:1]


def test_messages_say_what_of_them_has_no_effect_and_what_cannot_be(client):
    named = [{"role": "user", "content": "hello", "name": "Ada", "wobble": 1}]
    answer = client.chat.completions.create(model=NAME, messages=named, max_tokens=2)
    assert answer.warnings == [
        "messages[0].wobble is not known here and has no effect",
        "messages[0].name has no effect",
    ]
    for key, value in (("audio", {"id": "x"}), ("function_call", {"name": "f", "arguments": "{}"})):
        heard = [{"role": "assistant", "content": "x", key: value}, *ASK]
        with pytest.raises(openai.BadRequestError) as raised:
            client.chat.completions.create(model=NAME, messages=heard)
        assert raised.value.param == f"messages[0].{key}"
