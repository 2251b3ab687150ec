"""OpenAI's official Python client against the server: what people's programs do."""

from __future__ import annotations

from serving import ASK, NAME, chunks_of, text_of

from herd.serve.wire.chat import ChatCompletion
from herd.serve.wire.completions import TextCompletion
from herd.serve.wire.responses import ResponseBody


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
