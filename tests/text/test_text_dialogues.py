"""Dialogues on disk: both ways, and malformed records named by file, line and key."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.errors import ArtifactError, FormatError
from herd.text import Message, ToolCall, message_from_dict, message_to_dict, read_dialogues, write_dialogues

GOOD = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}


def test_dialogues_go_to_disk_and_back(tmp_path):
    talks = [
        [
            Message("user", "Grüezi 🦙"),
            Message("assistant", "", (ToolCall("f", {"a": [1, None]}),)),
            Message("tool", "x"),
        ],
        [Message("system", ""), Message("user", "\n")],
    ]
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert write_dialogues(tmp_path / name, talks) == 2
        assert list(read_dialogues(tmp_path / name)) == talks


@given(st.text(), st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_messages_survive_the_openai_form(text, parameters):
    message = Message("assistant", text, (ToolCall("f", parameters),))
    assert message_from_dict(message_to_dict(message)) == message
    assert message_from_dict(json.loads(json.dumps(message_to_dict(message)))) == message


def test_forms_that_apis_write_are_read():
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    raw = {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
    assert message_from_dict(raw) == Message("assistant", "", (ToolCall("f", {"a": 1}),))
    assert message_from_dict({"role": "tool", "tool_call_id": "c1", "content": "2"}) == Message("ipython", "2")
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert message_from_dict({"role": "user", "content": parts}) == Message("user", "ab")


def test_flat_calls_are_read():
    raw = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}
    assert message_from_dict(raw) == Message("assistant", "", (ToolCall("f", {"a": 1}),))


def test_tools_are_described_in_the_system_message(tmp_path):
    path = tmp_path / "talks.jsonl"
    tool = {"name": "add", "description": "Grüezi", "parameters": {"type": "object"}}
    records = [
        {**GOOD, "tools": [{"type": "function", "function": tool}, {"name": "sub"}]},
        {"messages": [{"role": "system", "content": " Be brief. "}, *GOOD["messages"]], "tools": [tool]},
        {**GOOD, "tools": []},
    ]
    path.write_text("\n".join(json.dumps(record) for record in records))
    made, prefixed, untouched = read_dialogues(path)
    assert [m.role for m in made] == ["system", "user", "assistant"]
    assert made[0].content.startswith("Environment: ipython\n")
    assert made[0].content.splitlines()[-2:] == [json.dumps(tool, ensure_ascii=False), '{"name": "sub"}']
    assert prefixed[0].content.endswith(json.dumps(tool, ensure_ascii=False) + "\n\nBe brief.")
    assert len(prefixed) == 3
    assert [m.role for m in untouched] == ["user", "assistant"]


def with_message(**message):
    return {"messages": [{"role": "user", "content": "hi"}, message]}


def with_call(call):
    return with_message(role="assistant", content="", tool_calls=call)


@pytest.mark.parametrize(
    ("record", "key"),
    [
        ([], "messages"),
        ({"message": []}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({**GOOD, "tools": {"name": "f"}}, "tools"),
        ({**GOOD, "tools": [{"name": "f"}, {"description": "no name"}]}, "tools[1]"),
        (with_message(role="robot", content=""), "messages[1].role"),
        (with_message(content="x"), "messages[1].role"),
        (with_message(role=["user"], content="x"), "messages[1].role"),
        (with_message(role="user"), "messages[1].content"),
        (with_message(role="user", content=3), "messages[1].content"),
        (with_message(role="user", content=[{"type": "image_url"}]), "messages[1].content"),
        (with_message(role="assistant", content="x", weight=0), "messages[1].weight"),
        (with_call({"name": "f"}), "messages[1].tool_calls"),
        (with_call([{"name": "f"}]), "messages[1].tool_calls[0].arguments"),
        (with_call(["f"]), "messages[1].tool_calls[0]"),
        (with_call([{"function": {"arguments": {}}}]), "messages[1].tool_calls[0].function.name"),
        (with_call([{"function": {"name": "f", "arguments": "{"}}]), "messages[1].tool_calls[0].function.arguments"),
        (with_call([{"function": {"name": "f", "arguments": "1"}}]), "messages[1].tool_calls[0].function.arguments"),
        (with_call([{"function": {"name": "f", "arguments": {}}}] * 2), "messages[1].tool_calls"),
        (
            {"messages": [{**GOOD["messages"][0], "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]},
            "messages[0]",
        ),
        ({"messages": ["hi"]}, "messages[0]"),
    ],
)
def test_malformed_dialogues_name_file_line_and_key(tmp_path, record, key):
    path = tmp_path / "talks.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{json.dumps(record)}\n")
    rows = read_dialogues(path)
    assert len(next(rows)) == 2
    with pytest.raises(FormatError) as caught:
        next(rows)
    assert "talks.jsonl, line 3" in str(caught.value)
    assert key in str(caught.value)


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "talks.jsonl"
    path.write_text(json.dumps(GOOD) + '\n{"messages": [')
    with pytest.raises(FormatError, match="line 2 is not JSON"):
        list(read_dialogues(path))
    packed = tmp_path / "talks.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(GOOD).encode() * 100)[:40])
    with pytest.raises(FormatError, match="cut short"):
        list(read_dialogues(packed))
    with pytest.raises(ArtifactError):
        list(read_dialogues(tmp_path / "none.jsonl"))
