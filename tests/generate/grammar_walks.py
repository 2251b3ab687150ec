"""Random walks through grammars, and the tools that their calls call."""

import os
from functools import lru_cache
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest

from herd.text.stream import ReplyStream, StreamDecoder
from herd.text.tool_parser import Call

DATA = Path(os.environ.get("HERD_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CORPUS = ['{"name": "weather", "parameters": {"town": "Bern", "days": 3}} hello wörld 12.5e3 "" \\n'] * 3
CLOSERS = frozenset(b'"}];')

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town",
        "parameters": {
            "type": "object",
            "properties": {
                "town": {"type": "string"},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "unit": {"enum": ["C", "F"]},
                "where": {"$ref": "#/$defs/place"},
            },
            "required": ["town"],
            "$defs": {"place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]}},
        },
    },
}
NOTE = {"name": "note", "parameters": {"type": "object"}}  # any keys and values
COUNTS = {"name": "counts", "parameters": {"type": "object", "additionalProperties": {"type": "number"}}}
NOW = {"type": "function", "function": {"name": "now"}}
TOOLS = [WEATHER, NOTE, COUNTS, NOW]


def data(name):
    if not (DATA / name).exists():
        pytest.skip(f"no real data: {DATA / name} is missing (set HERD_DATA)")
    return DATA / name


@lru_cache
def closing(tokenizer):
    """Which ids end something."""
    ids = range(tokenizer.vocab_size)
    return np.array([i in tokenizer.stop_ids or bool(CLOSERS & set(tokenizer.token_bytes(i))) for i in ids])


def walk(tokenizer, grammar, seed, most=400, close=0.3):
    """A random text of the grammar, as ids, and whether it came to its end; endings are likelier than chance."""
    rng, constraint, ids = np.random.default_rng(seed), grammar.start(), []
    closes = closing(tokenizer)
    for _ in range(most):
        allowed = np.flatnonzero(constraint.mask())
        if not len(allowed):
            return ids, True
        assert allowed[-1] < tokenizer.vocab_size
        enders = allowed[closes[allowed]]
        token = int(rng.choice(enders if len(enders) and rng.random() < close else allowed))
        ids.append(token)
        if token in tokenizer.stop_ids:
            return ids, True
        constraint.advance(token)
    return ids, False


def text_of(tokenizer, ids):
    stream = StreamDecoder(tokenizer, skip_special=True)
    return "".join(map(stream.push, ids)) + stream.flush()


def follows(tokenizer, grammar, text):
    """Whether the grammar takes the text, as the tokenizer cuts it, and may end there."""
    constraint = grammar.start()
    for token in tokenizer.encode(text):
        if not constraint.mask()[token]:
            return False
        constraint.advance(token)
    mask = constraint.mask()
    return not mask.any() or bool(mask[tokenizer.eot])


def read_calls(tokenizer, ids, tools):
    stream = ReplyStream(tokenizer, tools)
    return [event for token in ids for event in stream.push(token)] + stream.finish()


def check_calls(tokenizer, ids, parallel):
    schemas = {t.get("function", t)["name"]: t.get("function", t).get("parameters", {}) for t in TOOLS}
    events = read_calls(tokenizer, ids, schemas)
    assert events
    assert all(isinstance(event, Call) for event in events), (events, tokenizer.decode(ids))
    assert parallel or len(events) == 1
    for event in events:
        jsonschema_rs.validate(schemas[event.call.name], dict(event.call.parameters))
        assert event.call.name != "now" or not event.call.parameters
        assert event.call.name != "weather" or set(event.call.parameters) <= {"town", "days", "unit", "where"}
    return events
