"""Real function calls through every form there and back, and real prose in which nothing is a call.

Needs `benchmarks/bfcl` and `sft` of $HERD_DATA, or shared/data beside the repository.
"""

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from herd.text import Message, ToolCall, encode_dialogue, encode_prompt, parse_reply, parse_text
from herd.text.datasets import load_dialogues
from herd.text.tool_parser import Call, Text, ToolParser

DATA = Path(os.environ.get("HERD_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
ANSWERS, SFT = DATA / "benchmarks" / "bfcl" / "possible_answer", DATA / "sft"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ANSWERS.is_dir() or not SFT.is_dir(), reason=f"no function calls under {DATA}"),
]


def bfcl_calls():
    """Lists of calls: each argument's first accepted value that is not the mark of an optional one."""
    for name in ("simple_python", "multiple", "parallel"):
        for line in (ANSWERS / f"BFCL_v4_{name}.jsonl").read_text().splitlines():
            calls = []
            for truth in json.loads(line)["ground_truth"]:
                ((function, accepted),) = truth.items()
                given = {key: values[0] for key, values in accepted.items() if values and values[0] != ""}
                calls.append(ToolCall(function, given))
            yield calls


def dialogues():
    for part in ("dev", "train"):
        yield from (record for record in load_dialogues(SFT / f"sgd_function_calling_{part}.jsonl.gz").records)


def events(text, tools, rng):
    """Events of a reply cut at random places, neighbouring texts joined."""
    parser, found, at = ToolParser(tools), [], 0
    while at < len(text):
        step = rng.randrange(1, 9)
        found += parser.push(text[at : at + step])
        at += step
    joined = []
    for event in [*found, *parser.finish()]:
        if isinstance(event, Text) and joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + event.text)
        else:
            joined.append(event)
    return joined


def test_calls_of_a_benchmark_read_back_in_every_form():
    rng, n_calls = random.Random(0), 0
    for calls in bfcl_calls():
        n_calls += len(calls)
        tools = [call.name for call in calls]
        expected = [Call(call) for call in calls]
        written = {
            "json": ["; ".join(call.json() for call in calls), "[" + ", ".join(call.json() for call in calls) + "]"],
            "function": ["\n".join(ToolCall(c.name, c.parameters, "function").text() for c in calls)],
        }
        arguments = [", ".join(f"{k}={v!r}" for k, v in call.parameters.items()) for call in calls]
        python = [f"{call.name}({given})" for call, given in zip(calls, arguments, strict=True)]
        for text in [*written["json"], *written["function"], f"[{', '.join(python)}]"]:
            assert events(text, tools, rng) == expected, text
            parser = ToolParser()
            if not text.startswith("<"):
                assert [*parser.tag(), *parser.push(text), *parser.finish()] == expected, text
    assert n_calls > 1000


def test_dialogues_with_calls_come_back_from_their_ids(tokenizer):
    n_calls = 0
    for talk in dialogues():
        for place, message in enumerate(talk):
            if not message.tool_calls:
                continue
            n_calls += 1
            (call,) = message.tool_calls
            for form in ("json", "bare", "function"):
                sent = Message("assistant", message.content, (ToolCall(call.name, call.parameters, form),))
                before = talk[max(0, place - 1) : place]
                prompt = encode_prompt(tokenizer, before)
                ids = encode_dialogue(tokenizer, [*before, sent]).ids[len(prompt) :]
                got = parse_reply(tokenizer, ids, tools=[call.name])
                assert (got, got.problem) == (sent, "")
    assert n_calls > 500


def test_prose_that_talks_of_tools_and_code_calls_nothing():
    names = {call.name for calls in bfcl_calls() for call in calls}
    names |= {"wikipedia", "weather", "wolfram", "calculator", "print", "main", "function", "list", "get", "search"}
    n_replies = 0
    for path in sorted(SFT.glob("*.jsonl*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            for line in lines:
                for message in json.loads(line).get("messages", ()):
                    if message["role"] != "assistant" or not message.get("content"):
                        continue
                    n_replies += 1
                    reply = parse_text(message["content"], tools=names)
                    assert (reply.content, reply.tool_calls, reply.problem) == (message["content"].strip(), (), "")
    assert n_replies > 5000
