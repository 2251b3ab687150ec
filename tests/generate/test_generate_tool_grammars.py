"""Enforced tool calls: whatever is said is read into calls whose arguments meet their schemas."""

import json

import pytest
from grammar_walks import CORPUS, NOTE, TOOLS, check_calls, follows, walk
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.generate.grammars import Grammars
from herd.text.tokenizer import Tokenizer


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
