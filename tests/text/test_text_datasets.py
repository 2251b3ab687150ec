"""Datasets as people share them: every layout, files of every kind, and refusals with a sample row."""

import contextlib
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.errors import ArtifactError, FormatError, HerdError, InputError
from herd.text.datasets import load_dialogues, load_pairs, load_prompts
from herd.text.message import Message

DATA = Path(os.environ.get("HERD_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
ASKED, SAID, WORSE = Message("user", "2+2?"), Message("assistant", "4"), Message("assistant", "5")
SYSTEM = Message("system", "Be brief.")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def role(name, content):
    return {"role": name, "content": content}


def share(name, value):
    return {"from": name, "value": value}


TALK = [role("user", "2+2?"), role("assistant", "4")]
DIALOGUES = {
    "messages": ({"messages": TALK}, [ASKED, SAID]),
    "messages under another name": ({"conversations": TALK, "id": 1}, [ASKED, SAID]),
    "messages and system": ({"messages": TALK, "system": "Be brief."}, [SYSTEM, ASKED, SAID]),
    "sharegpt": ({"conversations": [share("human", "2+2?"), share("gpt", "4")]}, [ASKED, SAID]),
    "sharegpt and system": (
        {"conversations": [share("human", "2+2?"), share("gpt", "4")], "system": "Be brief."},
        [SYSTEM, ASKED, SAID],
    ),
    "alpaca": ({"instruction": "2+2?", "input": "", "output": "4"}, [ASKED, SAID]),
    "alpaca with input": (
        {"instruction": "Add.", "input": "2 and 2", "output": "4"},
        [Message("user", "Add.\n\n2 and 2"), SAID],
    ),
    "alpaca with history": (
        {"instruction": "2+2?", "output": "4", "history": [["hi", "ho"]]},
        [Message("user", "hi"), Message("assistant", "ho"), ASKED, SAID],
    ),
    "dolly": (
        {"instruction": "Add.", "context": "2 and 2", "response": "4"},
        [Message("user", "Add.\n\n2 and 2"), SAID],
    ),
    "prompt and completion": ({"prompt": "2+2?", "completion": "4"}, [ASKED, SAID]),
    "prompt and completion as messages": ({"prompt": TALK[:1], "completion": TALK[1:]}, [ASKED, SAID]),
    "question and answer": ({"question": "2+2?", "answer": "4"}, [ASKED, SAID]),
}
PAIRS = {
    "prompt, chosen, rejected": ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, (ASKED,)),
    "as messages": (
        {"prompt": TALK[:1], "chosen": TALK[1:], "rejected": [role("assistant", "5")]},
        (ASKED,),
    ),
    "orca": ({"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"}, (SYSTEM, ASKED)),
    "whole conversations": ({"chosen": TALK, "rejected": [TALK[0], role("assistant", "5")]}, (ASKED,)),
    "ultrafeedback": (
        {"prompt": "2+2?", "chosen": TALK, "rejected": [TALK[0], role("assistant", "5")]},
        (ASKED,),
    ),
    "hh-rlhf": (
        {"chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5"},
        (ASKED,),
    ),
    "sharegpt": (
        {"conversations": [share("human", "2+2?")], "chosen": share("gpt", "4"), "rejected": share("gpt", "5")},
        (ASKED,),
    ),
    "numbered": (
        {"prompt": "2+2?", "response_0": "5", "response_1": "4", "better_response_id": 1},
        (ASKED,),
    ),
}


@pytest.mark.parametrize("name", DIALOGUES)
def test_a_layout_of_dialogues_is_recognised(tmp_path, name):
    row, messages = DIALOGUES[name]
    data = load_dialogues(write(tmp_path / "d.jsonl", [row, row]))
    assert data.records == [messages, messages]
    assert "2 rows" in data.shown()


@pytest.mark.parametrize("name", PAIRS)
def test_a_layout_of_pairs_is_recognised(tmp_path, name):
    row, prompt = PAIRS[name]
    (pair,) = load_pairs(write(tmp_path / "d.jsonl", [row])).records
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, SAID, WORSE)


@pytest.mark.parametrize("name", DIALOGUES)
def test_prompts_are_dialogues_without_their_last_answer(tmp_path, name):
    row, messages = DIALOGUES[name]
    assert load_prompts(write(tmp_path / "d.jsonl", [row])).records == [messages[:-1]]


def test_prompts_alone_are_read(tmp_path):
    data = load_prompts(write(tmp_path / "d.jsonl", [{"prompt": "2+2?"}, {"prompt": "2+2?"}]))
    assert data.records == [[ASKED], [ASKED]]


@pytest.mark.parametrize(
    "kind", ["jsonl", "jsonl.gz", "json", "json of lines", "json in an object", "parquet", "folder"]
)
def test_every_kind_of_file_reads_alike(tmp_path, kind):
    rows = [{"messages": [*TALK, role("user", str(n)), role("assistant", "ok")], "id": n} for n in range(7)]
    path = tmp_path / f"d.{kind.split()[0]}"
    if kind == "jsonl":
        write(path, rows)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "json of lines":
        write(path, rows)
    elif kind == "json in an object":
        path.write_text(json.dumps({"version": 1, "data": rows}))
    elif kind == "parquet":
        _parquet(path, rows)
    else:
        path.mkdir()
        write(path / "a.jsonl", rows[:3])
        _parquet(path / "b.parquet", rows[3:])
        (path / "readme.md").write_text("not data")
    data = load_dialogues(path)
    assert [messages[2].content for messages in data.records] == [str(n) for n in range(7)]
    assert data.unused == ("id",)


def _parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_parquet_gives_every_message_every_key_and_that_is_no_harm(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": '{"a": 2}'}]}
    _parquet(tmp_path / "d.parquet", [{"messages": [TALK[0], call, role("tool", "4"), TALK[1]]}])
    (messages,) = load_dialogues(tmp_path / "d.parquet").records
    assert messages[1].tool_calls[0].parameters == {"a": 2}
    assert messages[3] == SAID


def test_sharegpt_calls_become_calls(tmp_path):
    turns = [share("human", "2+2?"), share("function_call", '{"name": "add", "arguments": {"a": 2}}')]
    turns += [share("observation", "4"), share("gpt", "4")]
    (messages,) = load_dialogues(write(tmp_path / "d.jsonl", [{"conversations": turns}])).records
    assert [m.role for m in messages] == ["user", "assistant", "ipython", "assistant"]
    assert messages[1].tool_calls[0].name == "add"


def test_columns_can_be_renamed(tmp_path):
    path = write(tmp_path / "d.jsonl", [{"frage": "2+2?", "antwort": "4"}])
    assert load_dialogues(path, {"prompt": "frage", "completion": "antwort"}).records == [[ASKED, SAID]]
    with pytest.raises(InputError, match="no column 'fragen'"):
        load_dialogues(path, {"prompt": "fragen"})


def test_unknown_columns_are_refused_with_the_row_and_the_layouts(tmp_path):
    path = write(tmp_path / "d.jsonl", [{"headline": "Rain", "body": "x" * 300}])
    with pytest.raises(FormatError) as found:
        load_dialogues(path)
    text = str(found.value)
    assert "headline, body" in text
    assert '{"headline": "Rain", "body": "xxx' in text
    assert "x" * 100 not in text
    assert "row 1" in text
    assert "sharegpt" in text
    assert "--columns" in text


def test_pairs_are_not_dialogues_and_dialogues_are_no_pairs(tmp_path):
    with pytest.raises(FormatError, match="none of the known layouts of preference pairs"):
        load_pairs(write(tmp_path / "d.jsonl", [{"messages": TALK}]))


def test_what_teaches_nothing_is_left_out_and_counted(tmp_path):
    rows = [{"messages": TALK}, {"messages": [TALK[0], role("assistant", " ")]}, {"messages": TALK[:1]}]
    data = load_dialogues(write(tmp_path / "d.jsonl", rows))
    assert len(data.records) == 1
    assert data.left_out == {"an empty answer": 1, "no answer of the assistant": 1}
    assert "left out: an empty answer" in data.shown()
    with pytest.raises(InputError, match="no row can be used: 1 with an empty answer"):
        load_dialogues(write(tmp_path / "d.jsonl", rows[1:2]))


def test_equal_answers_decide_nothing(tmp_path):
    rows = [{"prompt": "2+2?", "chosen": "4", "rejected": " 4"}, {"prompt": "2+2?", "chosen": "4", "rejected": "5"}]
    data = load_pairs(write(tmp_path / "d.jsonl", rows))
    assert data.left_out == {"two equal answers": 1}


def test_marks_that_turns_carry_are_kept_apart_from_what_they_say(tmp_path):
    turns = [{**TALK[0], "weight": 0, "id": 7}, {**TALK[1], "weight": 1, "timestamp": "now"}]
    data = load_dialogues(write(tmp_path / "d.jsonl", [{"messages": turns}]))
    assert data.records == [[ASKED, SAID]]
    assert data.unused == ("messages[].id", "messages[].timestamp")


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"a": {"type": "integer"}}}}


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL])])
@pytest.mark.parametrize("kind", ["messages", "sharegpt", "prompted"])
def test_tools_beside_any_layout_stand_before_it(tmp_path, tools, kind):
    rows = {
        "messages": {"messages": TALK},
        "sharegpt": {"conversations": [share("human", "2+2?"), share("gpt", "4")]},
        "prompted": {"prompt": "2+2?", "completion": "4"},
    }
    row = rows[kind] | {"tools": tools, "system": "Be brief."}
    (messages,) = load_dialogues(write(tmp_path / "d.jsonl", [row])).records
    assert [m.role for m in messages] == ["system", "user", "assistant"]
    assert '"name": "add"' in messages[0].content
    assert messages[0].content.endswith("Be brief.")


def test_parquet_structs_lose_the_keys_of_other_rows(tmp_path):
    tools = [{"name": name, "parameters": {name: {"type": "string"}}} for name in ("a", "b")]
    rows = [{"messages": TALK, "tools": [tool]} for tool in tools]
    _parquet(tmp_path / "d.parquet", rows)
    assert load_dialogues(tmp_path / "d.parquet").records == load_dialogues(write(tmp_path / "d.jsonl", rows)).records


def test_prompts_keep_their_context_and_history(tmp_path):
    row = {"instruction": "Add.", "context": "2 and 2", "response": "4", "history": [["hi", "ho"]]}
    (messages,) = load_prompts(write(tmp_path / "d.jsonl", [row])).records
    assert [m.content for m in messages] == ["hi", "ho", "Add.\n\n2 and 2"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.csv", b'prompt,completion\r\n2+2?,4\r\n"a, ""b""\nc",\xc3\xa9\r\n'),
        ("d.tsv", b"\xef\xbb\xbfprompt\tcompletion\n2+2?\t4\n\"a, \"\"b\"\"\nc\"\t\xc3\xa9\n"),
        ("d.jsonl", b'\xef\xbb\xbf{"prompt": "2+2?", "completion": "4"}\r\n'
         b'{"prompt": "a, \\"b\\"\\nc", "completion": "\xc3\xa9"}\r\n'),
    ],
)  # fmt: skip
def test_tables_marks_of_windows_and_its_line_ends_are_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    data = load_dialogues(tmp_path / name)
    assert data.records == [[ASKED, SAID], [Message("user", 'a, "b"\nc'), Message("assistant", "é")]]


def test_the_first_row_may_be_the_bad_one(tmp_path):
    data = load_dialogues(write(tmp_path / "d.jsonl", [{"messages": None}, *[{"messages": TALK}] * 150]))
    assert len(data.records) == 150
    assert "row 1" in data.shown()


def test_replies_of_several_messages_are_no_whole_conversations(tmp_path):
    reply = [TALK[1], role("user", "sure?"), role("assistant", "yes")]
    row = {"prompt": TALK[:1], "chosen": reply, "rejected": [*reply[:2], role("assistant", "no")]}
    with pytest.raises(FormatError, match="holds 3 messages"):
        load_pairs(write(tmp_path / "d.jsonl", [row]))


def test_marks_of_chat_templates_in_texts_are_told(tmp_path):
    rows = [{"prompt": "<|im_start|>user\n2+2?", "completion": "4"}, {"prompt": "2+2?", "completion": "4"}]
    data = load_dialogues(write(tmp_path / "d.jsonl", rows))
    assert data.marks == {"<|im_start|>": 1}
    assert "1 rows hold <|im_start|>" in data.shown()


@pytest.mark.parametrize(
    ("load", "row", "word"),
    [
        (load_dialogues, {"prompt": "a", "completion": "b", "label": False}, "KTO"),
        (load_dialogues, {"instruction": "a", "output": "b", "label": "True"}, "KTO"),
        (load_pairs, {"prompt": "a", "completion": "b", "label": True}, "KTO"),
        (load_dialogues, {"prompt": "a", "chosen": "b", "rejected": "c"}, "herd train dpo"),
        (load_pairs, {"messages": TALK}, "herd train sft"),
        (load_pairs, {"chosen": "b", "rejected": "c"}, "without their prompt"),
        (load_dialogues, {"text": "Once upon a time"}, "herd raise"),
    ],
)
def test_what_is_meant_for_something_else_says_for_what(tmp_path, load, row, word):
    with pytest.raises(FormatError) as found:
        load(write(tmp_path / "d.jsonl", [row]))
    assert word in found.value.mend


BAD = {"messages": [role("user", "2+2?"), {"role": "assistant", "content": "4", "weight": 0}]}


def test_a_malformed_row_among_many_is_left_out_and_among_few_refused(tmp_path):
    data = load_dialogues(write(tmp_path / "d.jsonl", [{"messages": TALK}] * 150 + [BAD]))
    assert len(data.records) == 150
    assert "1 left out: malformed, the first at" in data.shown()
    assert "row 151, messages[1].weight" in data.shown()
    with pytest.raises(FormatError, match=r"'weight' is 0: an answer that is not to be learnt(.|\n)*the row"):
        load_dialogues(write(tmp_path / "d.jsonl", [{"messages": TALK}] * 50 + [BAD]))


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"messages": [TALK[0], {**TALK[1], "thinking": "hm"}]}, "'thinking' is 'hm'"),
        ({"conversations": [share("human", "a"), {**share("gpt", "b"), "weight": 0}]}, "not to be learnt"),
        ({"messages": TALK, "tools": "[{"}, "a text that is not JSON"),
        ({"messages": TALK, "tools": {"a": 1}}, "not a list"),
        ({"conversations": [share("robot", "x"), share("gpt", "y")]}, "unknown speaker 'robot'"),
        ({"conversations": [share("human", 3)]}, "'from' and 'value'"),
        ({"conversations": [share("function_call", "{")]}, "not JSON"),
        ({"instruction": 5, "output": "x"}, "'instruction' is int"),
        ({"instruction": "a", "output": "x", "history": [1]}, "not a row of 'alpaca'"),
        ({"prompt": "a", "completion": [role("user", "b")]}, "a message of the user"),
    ],
)
def test_malformed_rows_say_what_is_wrong(tmp_path, row, word):
    with pytest.raises(FormatError, match=word):
        load_dialogues(write(tmp_path / "d.jsonl", [row]))


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("d.csv", b"prompt,completion\na,b\na,b,c\n", "line 3 has 3 fields"),
        ("d.csv", b'prompt,completion\na,"b\n', "damaged"),
        ("d.csv", b"prompt,completion\n", "no row can be used"),
        ("d.arrow", b"", "known are"),
        ("d.jsonl", b'{"messages": [', "line 1 is not JSON"),
        ("d.jsonl", b"[1]\n", "a row is an object"),
        ("d.jsonl", b"", "no row can be used"),
        ("d.json", b'{"a"', "not valid JSON"),
        ("d.parquet", b"PAR1 not at all", "not a whole Parquet"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, name, content, word):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HerdError, match=word) as found:
        load_dialogues(tmp_path / name)
    assert name in found.value.where


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(ArtifactError, match="no dataset is here"):
        load_dialogues(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match="no file here ends in"):
        load_dialogues(tmp_path)


def real(name):
    if not (DATA / name).exists():
        pytest.skip(f"no real data: {DATA / name} is missing (set HERD_DATA)")
    return DATA / name


@pytest.mark.parametrize(
    ("name", "rows"),
    [("fastchat_dummy.jsonl", 500), ("oasst_en_100.jsonl.gz", 371), ("sgd_function_calling_dev.jsonl.gz", 768)],
)
def test_real_dialogues(name, rows):
    data = load_dialogues(real(f"sft/{name}"))
    assert len(data.records) + sum(data.left_out.values()) == rows
    assert data.layout == "messages"


def test_real_pairs_and_their_odd_rows():
    data = load_pairs(real("preference/hh_harmless_test.jsonl.gz"))
    assert len(data.records) == 1860 - 7  # four empty answers, three of two messages
    assert sum(data.left_out.values()) == 7
    assert len(load_pairs(real("preference/oasst_en_100_pairs.jsonl.gz")).records) == 715


def test_real_rows_that_are_no_pairs():
    with pytest.raises(FormatError, match="prediction 1, prediction 2"):
        load_pairs(real("preference/qa_feedback_fine_grained.jsonl.gz"))


SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=6) | st.just("\n\nHuman: a\n\nAssistant: b"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ("role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "weight")
            ),
            st.sampled_from(("user", "assistant", "human", "gpt", "function_call")) | inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
COLUMNS = (
    *("messages", "conversations", "prompt", "completion", "instruction", "input", "output", "history", "system"),
    *("tools", "chosen", "rejected", "response_0", "response_1", "better_response_id", "label", "text"),
)


@settings(max_examples=200, deadline=None)
@given(row=st.dictionaries(st.sampled_from(COLUMNS), SCRAPS, max_size=5))
def test_whatever_a_row_holds_it_is_read_or_refused_in_a_sentence(tmp_path_factory, row):
    path = tmp_path_factory.mktemp("d") / "d.jsonl"
    write(path, [row])
    for load in (load_dialogues, load_pairs, load_prompts):
        with contextlib.suppress(HerdError):
            assert load(path).records
