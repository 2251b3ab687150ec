"""Answers held to a form, through HTTP: a model that knows nothing writes them nevertheless."""

from __future__ import annotations

import json
import re

import openai
import pytest
from serving import ASK, NAME, WEATHER

pytest.importorskip("llguidance")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
HOW = {"model": NAME, "max_tokens": 700}


def json_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}


@pytest.mark.parametrize("seed", range(3))
def test_a_json_schema_holds_an_answer(client, seed):
    format_ = json_schema(PERSON)
    choice = client.chat.completions.create(**HOW, messages=ASK, response_format=format_, seed=seed).choices[0]
    found = json.loads(choice.message.content)
    assert choice.finish_reason == "stop"
    assert list(found) == ["name", "age"]
    assert 0 <= found["age"] <= 120


def test_the_client_parses_what_pydantic_asked_for(client):
    from pydantic import BaseModel, Field

    class Person(BaseModel):
        name: str = Field(max_length=8)
        age: int = Field(ge=0, le=120)

    parsed = (
        client.chat.completions.parse(**HOW, messages=ASK, response_format=Person, seed=1).choices[0].message.parsed
    )
    assert 0 <= parsed.age <= 120
    response = client.responses.parse(
        model=NAME, input="Who?", text_format=Person, max_output_tokens=700, extra_body={"seed": 1}
    )
    assert 0 <= response.output_parsed.age <= 120


def test_a_json_object_is_one(client):
    how = {**HOW, "max_tokens": 900, "logit_bias": {}, "seed": 2}
    choice = client.chat.completions.create(**how, messages=ASK, response_format={"type": "json_object"}).choices[0]
    assert choice.message.content.lstrip().startswith("{")
    assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict)


@pytest.mark.parametrize(
    ("extra", "pattern"),
    [
        ({"guided_regex": r"[ab]{3}-\d\d"}, r"[ab]{3}-\d\d"),
        ({"structured_outputs": {"regex": r"x+y"}}, r"x+y"),
        ({"guided_choice": ["yes", "no"]}, r"yes|no"),
        ({"structured_outputs": {"choice": ["red", "green"]}}, r"red|green"),
        ({"guided_grammar": 'root ::= "a" ("b" | "c")'}, r"a[bc]"),
        ({"guided_json": json.dumps({"enum": ["x", 7]})}, r'"x"|7'),
    ],
    ids=str,
)
def test_other_forms_hold_an_answer(client, extra, pattern):
    chat = client.chat.completions.create(**HOW, messages=ASK, extra_body=extra).choices[0]
    text = client.completions.create(**HOW, prompt="hello", extra_body=extra).choices[0]
    for said in (chat.message.content, text.text):
        assert re.fullmatch(pattern, said.strip()), said


def other(name):
    return {"type": "function", "function": {**WEATHER["function"], "name": name}}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=str)
def test_a_call_that_must_be_made_is_made(client, choice):
    how = {**HOW, "messages": ASK, "tools": [other("time"), WEATHER], "tool_choice": choice}
    for seed in range(2):
        answer = client.chat.completions.create(**how, seed=seed, parallel_tool_calls=False).choices[0]
        assert answer.finish_reason == "tool_calls", answer
        (call,) = answer.message.tool_calls
        assert call.function.name in (("weather",) if isinstance(choice, dict) else ("time", "weather"))
        assert list(json.loads(call.function.arguments)) == ["town"]


def test_a_response_calls_a_function_that_must_be_called(client):
    tool = {"type": "function", **WEATHER["function"]}
    how = {"model": NAME, "input": "Hello", "tools": [tool], "max_output_tokens": 700, "parallel_tool_calls": False}
    how["extra_body"] = {"seed": 1}  # drawn anew, an answer may be longer than there is room
    for choice in ("required", {"type": "function", "name": "weather"}):
        response = client.responses.create(**how, tool_choice=choice)
        assert [item.type for item in response.output] == ["function_call"]


@pytest.mark.parametrize(
    "changes",
    [
        {"response_format": json_schema({"type": "nonsense"})},
        {"response_format": {"type": "json_schema"}},
        {"response_format": json_schema({"$ref": "file:///etc/passwd"})},
        {"guided_regex": "("},
        {"guided_grammar": "root ::= ("},
        {"guided_json": "{"},
        {"structured_outputs": {"choice": []}},
        {"response_format": json_schema(PERSON), "guided_regex": "a"},
    ],
    ids=str,
)
def test_forms_that_are_none_are_refused(client, changes):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**HOW, messages=ASK, extra_body=changes)
    assert raised.value.body["message"]
    assert "Traceback" not in raised.value.body["message"]
