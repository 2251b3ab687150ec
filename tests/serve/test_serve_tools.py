"""Tools through OpenAI's official Python client: calls whole and streamed, and their results sent back."""

from __future__ import annotations

import json

import pytest
from serving import ASK, CALL, NAME, WEATHER, chunks_of, text_of


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
