"""Grammars that are malformed, or made to be hard: refused with a reason, or they end their own request."""

import sys

import numpy as np
import pytest
from generate_models import telling_model
from grammar_walks import NOW, TOOLS, follows, walk

from herd.errors import InputError, MissingExtraError, SettingError
from herd.generate import Request, Sampling, grammar_trial
from herd.generate.engine import Engine
from herd.generate.grammars import Grammars
from herd.llama.config import LlamaConfig


class GivesUp:
    """A grammar that becomes too complex at its third token."""

    def __init__(self, vocab_size):
        self.vocab_size, self.n = vocab_size, 0

    def start(self):
        return GivesUp(self.vocab_size)

    def mask(self):
        if self.n == 3:
            raise InputError("the grammar cannot be followed: too complex")
        return np.ones(self.vocab_size, dtype=np.bool_)

    def advance(self, token):
        self.n += 1

    def forced(self):
        return ()


def test_a_grammar_that_gives_up_ends_its_own_request_only():
    model = telling_model(LlamaConfig(50, 32, 2, 4, 2, 48, max_seq_len=64))
    engine = Engine(model)
    plain = Request((1, 2, 3), Sampling(max_tokens=9))
    [expected] = engine.generate([plain])
    handles = [engine.submit(plain), engine.submit(Request((1, 2), Sampling(max_tokens=9), GivesUp(50)))]
    done = {}
    while engine.busy:
        done.update(engine.step().finished)
    assert done[handles[0]].tokens == expected.tokens
    assert len(done[handles[1]].tokens) == 3
    assert done[handles[1]].finish == "length"
    assert "too complex" in done[handles[1]].problem


def _nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def _cycle():
    schema = {"type": "object"}
    schema["properties"] = {"a": schema}
    return schema


CIRCLE = {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}


def _one_of_six(i):
    return {"anyOf": [{"properties": {f"p{i}": {"const": j}}} for j in range(6)]}


HOSTILE = {
    "no schema": lambda g: g.json([1]),
    "unknown type": lambda g: g.json({"type": "wish"}),
    "not supported": lambda g: g.json({"not": {"type": "string"}}),
    "not JSON": lambda g: g.json({"const": {1, 2}}),
    "half a character": lambda g: g.json({"const": "\ud800"}),
    "deep": lambda g: g.json(_nested(95)),
    "very deep": lambda g: g.json(_nested(5_000)),
    "without end": lambda g: g.json(_cycle()),
    "wide": lambda g: g.json({"properties": {f"k{i}": {"type": "string"} for i in range(30_000)}}),
    "refers to itself": lambda g: g.json({"$ref": "#"}),
    "refers in a circle": lambda g: g.json({"$ref": "#/$defs/a", "$defs": CIRCLE}),
    "refers to the net": lambda g: g.json({"$ref": "http://127.0.0.1:1/x.json"}),
    "refers to a file": lambda g: g.json({"$ref": "file:///etc/passwd"}),
    "exponential": lambda g: g.json({"allOf": [_one_of_six(i) for i in range(12)]}),
    "no expression": lambda g: g.regex("(a"),
    "look-ahead": lambda g: g.regex("(?=a)a"),
    "reference": lambda g: g.regex(r"(a)\1"),
    "deep expression": lambda g: g.regex("(" * 20_000 + "a" + ")" * 20_000),
    "long expression": lambda g: g.regex("a" * 300_000),
    "no text": lambda g: g.regex(7),
    "no rules": lambda g: g.ebnf(""),
    "unknown rule": lambda g: g.ebnf("root ::= a"),
    "in a circle": lambda g: g.ebnf("start: a\na: b\nb: a"),
    "deep rules": lambda g: g.ebnf("root ::= " + "(" * 5_000 + '"a"' + ")" * 5_000),
    "deep Lark": lambda g: g.ebnf("start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
    "no choice": lambda g: g.choice([]),
    "choice of letters": lambda g: g.choice("abc"),
    "choice of a half": lambda g: g.choice(["\ud800"]),
    "no tools": lambda g: g.tools([]),
    "no tool": lambda g: g.tools([{"type": "function"}]),
    "another tool": lambda g: g.tools(TOOLS, "rain"),
    "two of a name": lambda g: g.tools([NOW, NOW]),
    "a name that JSON escapes": lambda g: g.tools([{"name": 'say "it"'}]),
    "arguments in a list": lambda g: g.tools([{"name": "f", "parameters": {"type": "array"}}]),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_malformed_or_made_to_be_hard_is_refused(grammars, name):
    with pytest.raises(InputError) as caught:
        HOSTILE[name](grammars)
    assert 5 < len(caught.value.message) < 500


@pytest.mark.parametrize(
    "make",
    [
        lambda g: g.regex("((((a{100}){100}){100}){100})"),
        lambda g: g.regex("(a|b)*a(a|b){40}"),
        lambda g: g.regex("(a*)*(a|aa)*b"),
        lambda g: g.ebnf('start: s\ns: s s | s s s | "a" | ""'),
        lambda g: g.json({"type": "integer", "multipleOf": 9973}),
        lambda g: g.json({"$ref": "#/$defs/d20", "$defs": {"d0": {"type": "object"}} | {
            f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i - 1}"}] * 2} for i in range(1, 21)}}),
    ],
)  # fmt: skip
def test_what_is_hard_to_follow_ends_or_says_why(trained, grammars, make):
    try:
        ids, _ = walk(trained, make(grammars), 0, most=100, close=0)
        assert ids
    except InputError as error:
        assert "cannot be followed" in error.message  # noqa: PT017


def test_patterns_that_take_for_ever_to_intersect_are_given_up(grammars, monkeypatch):
    monkeypatch.setattr(grammar_trial.try_out, "__defaults__", (0.5,))
    parts = [{"type": "string", "pattern": f"^(a|b)*a(a|b){{{i}}}$"} for i in range(20)]
    with pytest.raises(InputError, match=r"over 0\.5 seconds to compile"):
        grammars.json({"allOf": parts})


def test_two_patterns_together_are_no_matter(trained, grammars):
    both = {"allOf": [{"type": "string", "pattern": "^[a-m]+$"}, {"type": "string", "pattern": "^[h-z]{3}$"}]}
    assert follows(trained, grammars.json(both), '"hil"')
    assert not follows(trained, grammars.json(both), '"abc"')


def test_a_tokenizer_larger_than_the_model_is_refused(trained):
    with pytest.raises(SettingError, match="the model 100"):
        Grammars(trained, 100)


def test_without_llguidance_the_extra_is_named(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"herd\[grammar\]"):
        Grammars(trained, trained.vocab_size)
