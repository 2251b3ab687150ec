"""Grammars over every kind of tokenizer: what comes out fits, what cannot be meant is refused, nothing hangs."""

import json
import os
import re
import sys
from functools import lru_cache
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
from generate_models import telling_model
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.errors import InputError, MissingExtraError, SettingError
from herd.generate import Request, Sampling, grammar_trial
from herd.generate.engine import Engine
from herd.generate.grammars import Grammars
from herd.llama.config import LlamaConfig
from herd.text.stream import ReplyStream, StreamDecoder
from herd.text.tokenizer import Tokenizer
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


@pytest.fixture(scope="module")
def trained():
    return Tokenizer.train(CORPUS, 700)


@pytest.fixture(scope="module")
def llama2():
    pytest.importorskip("sentencepiece")
    return Tokenizer.load(_data("checkpoints/llama2_tokenizer/tokenizer.model"))


@pytest.fixture(scope="module")
def grammars(trained):
    return Grammars(trained, trained.vocab_size + 7)


def _data(name):
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


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": ["string", "null"]}}, "required": ["a"]},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"const": "yes"}, {"type": "object", "properties": {"why": {"type": "string", "maxLength": 5}}}]},
    {"type": "string", "pattern": "^[a-c]{2,4}$"},
    {"type": "number", "minimum": -1, "maximum": 1},
    {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {
        "v": {"enum": [1, "x", None]}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}},
        "required": ["v"], "additionalProperties": False}}},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_is_said_under_a_schema_meets_it(trained, grammars, schema):
    ended = 0
    for seed in range(12):
        ids, whole = walk(trained, grammars.json(schema), seed)
        if whole:
            jsonschema_rs.validate(schema, json.loads(text_of(trained, ids)))
            ended += 1
    assert ended > 4


def test_without_a_schema_it_is_any_object(trained, grammars):
    values = [
        json.loads(text_of(trained, ids))
        for ids, whole in (walk(trained, grammars.json(), s) for s in range(12))
        if whole
    ]
    assert len(values) > 4
    assert all(isinstance(value, dict) for value in values)
    assert follows(trained, grammars.json(), '{\n    "a": [1, 2.5e3, null],\n    "ä": {"b": "x\\ny"}\n}')
    assert not follows(trained, grammars.json(), '{"a":' + " " * 80 + "1}")
    assert not follows(trained, grammars.json(), "[1]")


PATTERNS = [r"[a-z]+@[a-z]+\.(org|com)", r"^[0-9]{3}-[0-9]{2}$", r"(ja|nein)!*", r"\p{Lu}ö?", r" *x"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_said_under_a_pattern_matches_it_whole(trained, grammars, pattern):
    for seed in range(8):
        ids, whole = walk(trained, grammars.regex(pattern), seed)
        python = pattern.replace(r"\p{Lu}", r"[^\W\d_a-z]")
        assert not whole or re.fullmatch(python, text_of(trained, ids)), text_of(trained, ids)


def test_a_choice_is_one_of_its_texts_even_where_one_begins_another(trained, grammars):
    texts = ["a", "ab", "a/b\n", 'wörld "q"', "{", "\u0001"]
    said = {text_of(trained, walk(trained, grammars.choice(texts), seed)[0]) for seed in range(60)}
    assert said == set(texts)


@pytest.mark.parametrize(
    "text",
    ['root ::= item ("," item)*\nitem ::= [0-9]+ | "x" # comment\n', 'start: item ("," item)*\nitem: /[0-9]+/ | "x"\n'],
)
def test_both_ways_of_writing_a_grammar_are_read(trained, grammars, text):
    grammar = grammars.ebnf(text)
    assert follows(trained, grammar, "12,x,3")
    assert not follows(trained, grammar, "12,")
    assert not follows(trained, grammar, "y")


def test_special_tokens_never_come_even_if_a_grammar_names_them(trained, grammars):
    constraint = grammars.ebnf('start: "a" ("b" | <|begin_of_text|>) "c" | "a" <|python_tag|>?').start()
    constraint.advance(trained.encode("a")[0])
    specials = [i for i in np.flatnonzero(constraint.mask()).tolist() if trained.is_special(i)]
    assert set(specials) <= {*trained.stop_ids, trained.python_tag}
    with pytest.raises(InputError, match="leads nowhere"):
        grammars.ebnf("start: <|begin_of_text|>")


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


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("kind", ["trained", pytest.param("llama2", marks=pytest.mark.slow)])
def test_enforced_calls_are_always_read_and_meet_their_schemas(request, kind, parallel):
    tokenizer = request.getfixturevalue(kind)
    grammar = Grammars(tokenizer, tokenizer.vocab_size).tools(TOOLS, "required", parallel)
    found = []
    for seed in range(30):
        ids, whole = walk(tokenizer, grammar, seed, most=150, close=0.5)
        if whole:
            found.append(check_calls(tokenizer, ids, parallel))
    assert len(found) > 10
    assert len({event.call.name for events in found for event in events}) == len(TOOLS)
    assert any(len(events) > 1 for events in found) == parallel
    assert any(e.call.form == "json" for events in found for e in events) == (tokenizer.python_tag is not None)
    assert any(e.call.form == "bare" for events in found for e in events)


def test_one_function_can_be_asked_for_by_name(trained, grammars):
    for seed in range(5):
        [event] = check_calls(trained, walk(trained, grammars.tools(TOOLS, "now"), seed)[0], parallel=False)
        assert event.call.name == "now"


def test_herds_own_form_of_a_call_is_taken(trained, grammars):
    grammar = grammars.tools(TOOLS, "required", parallel=True)
    call = '{"type": "function", "name": "weather", "parameters": {"town": "Bern", "where": {"lat": 4.5}}}'
    for text in (call, f"{call}; {call}", call.replace('"type": "function", ', "")):
        assert follows(trained, grammar, text)
    assert not follows(trained, grammar, call.replace("Bern", "Bern\n"))
    assert not follows(trained, grammar, call.replace('"lat": 4.5', '"lat": 4.5, "long": 1'))
    assert not follows(trained, grammars.tools(TOOLS, "required", parallel=False), f"{call}; {call}")


def test_what_no_grammar_can_keep_out_of_a_call_is_kept_out(trained, grammars):
    grammar, begin = grammars.tools([NOTE]), '{"name": "note", "parameters": {'
    for inside in (
        '"a": 1, "a": 2',
        '"a": {"b": 1, "b": 2}',
        '"a": 1e999',
        f'"a": {"1" * 300}',
        '"a": ' + "[" * 95 + "]" * 95,
    ):
        assert not follows(trained, grammar, f"{begin}{inside}}}}}"), inside
    for inside in (
        '"a": 1, "aa": 2, "": 0',
        '"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]',
        '"a": 1e99',
        f'"a": {"1" * 190}.5',
    ):
        assert follows(trained, grammar, f"{begin}{inside}}}}}"), inside


keys = st.sampled_from(["a", "b", "é", 'q"', "\\", "n\n", "x y"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(-1e30, 1e30)
    | st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=4)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@settings(max_examples=60)
@given(st.dictionaries(keys, values))
def test_every_call_that_herd_writes_can_be_said(arguments):
    tokenizer, grammars = _shared()
    call = json.dumps({"type": "function", "name": "note", "parameters": arguments}, ensure_ascii=False)
    if "\\u" not in call.replace("\\\\", ""):  # other controls come as \u, which is taken, but in the other case too
        assert follows(tokenizer, grammars.tools([NOTE]), call)


def _shared(made=[]):  # noqa: B006
    if not made:
        tokenizer = Tokenizer.train(CORPUS, 700)
        made.append((tokenizer, Grammars(tokenizer, tokenizer.vocab_size)))
    return made[0]


@pytest.mark.parametrize("kind", [pytest.param("llama3", marks=pytest.mark.slow), "llama2"])
def test_released_vocabularies(request, kind):
    if kind == "llama3":
        path = _data("tokenizer/tokenizer.model")
    tokenizer = request.getfixturevalue("llama2") if kind == "llama2" else Tokenizer.load(path)
    grammars = Grammars(tokenizer, tokenizer.vocab_size + 64)
    for grammar, text in (
        (grammars.json(SCHEMAS[0]), '{"a": 12345, "b": "Zürich 🦙 नमस्ते"}'),
        (grammars.tools(TOOLS), json.dumps({"name": "weather", "parameters": {"town": "Bern", "days": 3}})),
        (grammars.regex("[a-z ]+"), "hello world"),
        (grammars.choice(["yes", "no", "maybe so"]), "maybe so"),
    ):
        assert grammar.start().mask().shape == (tokenizer.vocab_size + 64,)
        assert follows(tokenizer, grammar, text)
        ids, whole = walk(tokenizer, grammar, 3, most=60, close=0.8)
        assert not whole or text_of(tokenizer, ids)


def test_engine_and_grammar_together(trained):
    model = telling_model(LlamaConfig(trained.vocab_size + 7, 32, 2, 4, 2, 48, max_seq_len=512))
    engine, grammars = Engine(model, tokenizer=trained), Grammars(trained, trained.vocab_size + 7)
    how = Sampling(max_tokens=300, temperature=1.5, stop_ids=trained.stop_ids)
    requests = [
        *Request((1, 2), how, grammars.choice(["red", "green", "blue"])).candidates(4),
        *Request((3,), how, grammars.regex("[a-f]{3,9}")).candidates(4),
        *Request((3,), how, grammars.tools([NOW])).candidates(2),
        Request((4,), how, grammars.json({"enum": ["ja", "nein"]})),
    ]
    paged = {engine.submit(request): i for i, request in enumerate(requests)}
    done = {}
    while engine.busy:
        done.update({paged[number]: completion for number, completion in engine.step().finished})
    for i, completion in enumerate(engine.generate(requests)):
        assert done[i].tokens == completion.tokens
        assert (completion.finish, completion.problem) == ("stop", "")
    texts = [text_of(trained, done[i].tokens) for i in range(8)]
    assert set(texts[:4]) <= {"red", "green", "blue"}
    assert all(re.fullmatch("[a-f]{3,9}", text) for text in texts[4:])
    assert [event.call.name for event in read_calls(trained, done[8].tokens, ["now"])] == ["now"]
    assert engine.drafting.forced > 20  # of the calls almost all is forced


def test_what_is_forced_is_what_the_masks_allow(trained, grammars):
    call = trained.encode('{"type": "function", "name": "weather", "parameters": {"town": "Bern"}}')
    constraint, at, passes = grammars.tools(TOOLS, "weather").start(), 0, 0
    while at < len(call):
        for token in constraint.forced() or [call[at]]:
            assert token == call[at]
            assert constraint.mask()[token]
            constraint.advance(token)
            at += 1
        passes += 1
    assert passes < len(call) / 2


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


def test_equal_grammars_are_compiled_once_and_share_their_first_mask(grammars):
    one, other = grammars.json({"type": "integer"}), grammars.json({"type": "integer"})
    assert one is other
    assert one.start().mask() is other.start().mask()
    with pytest.raises(ValueError, match="read-only"):
        one.start().mask()[0] = True
    for i in range(200):
        grammars.choice([str(i)])
    assert len(grammars._compiled) < 150
    assert grammars.json({"type": "integer"}) is not one


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
