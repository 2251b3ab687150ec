"""Grammars over every kind of tokenizer: what comes out fits, and what fits can come."""

import json
import re

import jsonschema_rs
import numpy as np
import pytest
from generate_models import telling_model
from grammar_walks import NOW, TOOLS, data, follows, read_calls, text_of, walk

from herd.errors import InputError
from herd.generate import Request, Sampling
from herd.generate.engine import Engine
from herd.generate.grammars import Grammars
from herd.llama.config import LlamaConfig
from herd.text.tokenizer import Tokenizer

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


@pytest.mark.parametrize("kind", [pytest.param("llama3", marks=pytest.mark.slow), "llama2"])
def test_released_vocabularies(request, kind):
    if kind == "llama3":
        path = data("tokenizer/tokenizer.model")
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
