"""The template in a model folder, rendered by transformers, is byte for byte what our code writes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.errors import InputError
from herd.text import Message, ToolCall, encode_dialogue, encode_prompt, message_to_dict, prepare
from herd.text.dialogues import message_from_dict

transformers = pytest.importorskip("transformers", reason="pip install 'herd[dev]'")

words = st.sampled_from(
    ["", " ", "\n", "hi", "नमस्ते 🦙", "{{ bos_token }}", "{% if %}", "'\"\\", "<b>&", "\u2028", "\x0b"]
)
text = st.lists(words | st.text(max_size=6), max_size=4).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["add", "brave_search", "wolfram_alpha", "code_interpreter", 'say "x"', "é"])
arguments = (
    st.dictionaries(text, values, max_size=3)
    | st.builds(lambda query: {"query": query}, text)
    | st.builds(lambda code: {"code": code}, text | st.integers())
)
calls = st.builds(ToolCall, names, arguments, st.sampled_from(["json", "bare", "function"]))
messages = st.one_of(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "ipython"]), text),
    st.builds(lambda content, call: Message("assistant", content, (call,)), text, calls),
)
functions = st.builds(
    lambda name, about, nested: (
        {"type": "function", "function": {"name": name, **about}} if nested else {"name": name, **about}
    ),
    st.text(min_size=1, max_size=5),
    st.fixed_dictionaries({}, optional={"description": text, "parameters": st.dictionaries(text, values, max_size=2)}),
    st.booleans(),
)
builtin = st.none() | st.lists(st.sampled_from(["brave_search", "wolfram_alpha", "code_interpreter"]), unique=True)
setups = st.fixed_dictionaries(
    {},
    optional={
        "builtin_tools": builtin,
        "tools_in_user_message": st.booleans(),
        "function_tags": st.booleans(),
        "cutting_knowledge_date": st.sampled_from(["", "December 2023"]),
        "date_string": st.sampled_from(["", "21 September 2024"]) | st.text(max_size=8),
    },
)


@pytest.fixture(scope="module")
def theirs(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@settings(deadline=None, max_examples=300)
@given(st.lists(messages, min_size=1, max_size=5), st.lists(functions, max_size=2), setups, st.booleans())
def test_same_bytes_and_same_ids(theirs, tokenizer, talk, tools, setup, opened):
    raw = [message_to_dict(message) for message in talk]
    talk = prepare(talk, tools, **setup)
    ours = encode_prompt(tokenizer, talk) if opened else encode_dialogue(tokenizer, talk).ids
    options = {"tools": tools or None, "add_generation_prompt": opened, **setup}
    assert theirs.apply_chat_template(raw, tokenize=False, **options) == tokenizer.decode(ours)
    assert theirs.apply_chat_template(raw, tokenize=True, return_dict=True, **options)["input_ids"] == ours


@settings(deadline=None)
@given(messages)
def test_messages_survive_their_dictionary(message):
    again = message_from_dict(message_to_dict(message))
    assert again == message
    assert [call.form for call in again.tool_calls] == [call.form for call in message.tool_calls]


def test_text_in_parts_is_text(theirs):
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert theirs.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False
    ) == theirs.apply_chat_template([{"role": "user", "content": "a b"}], tokenize=False)


@settings(deadline=None)
@given(st.dictionaries(text, values, max_size=3) | st.lists(values, max_size=3) | st.integers() | st.booleans())
def test_results_of_tools_that_are_no_text_are_written_as_json(theirs, tokenizer, result):
    raw = [{"role": "user", "content": "?"}, {"role": "tool", "content": result}]
    talk = [message_from_dict(message) for message in raw]
    assert json.loads(talk[1].content) == result
    assert theirs.apply_chat_template(raw, tokenize=False) == tokenizer.decode(encode_dialogue(tokenizer, talk).ids)


def test_flat_calls_are_calls(theirs):
    call = {"name": "add", "arguments": {"a": 1}}
    flat, nested = ([{"role": "assistant", "tool_calls": [one]}] for one in (call, {"function": call}))
    assert theirs.apply_chat_template(flat, tokenize=False) == theirs.apply_chat_template(nested, tokenize=False)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "user", "content": [{"type": "image"}]}, "Content is text"),
        ({"role": "user", "content": [7]}, "Content is text"),
        ({"role": "user", "content": 0}, "Content is text"),
        ({"role": "user", "content": {}}, "Content is text"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]},
            "parse them first",
        ),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, "parse them first"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}, "form": "xml"}]}, "form"),
    ],
)
def test_template_refuses_what_it_would_lose(theirs, message, reason):
    with pytest.raises(Exception, match=reason):
        theirs.apply_chat_template([message], tokenize=False)


def test_unknown_built_in_tools_are_refused(theirs):
    talk = [Message("user", "hi")]
    with pytest.raises(InputError, match="'photogen' is no built-in tool"):
        prepare(talk, builtin_tools=["photogen"])
    with pytest.raises(Exception, match="photogen"):
        theirs.apply_chat_template([message_to_dict(talk[0])], builtin_tools=["photogen"], tokenize=False)
