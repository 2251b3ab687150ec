"""The guard of tool calls beside the plainest one: read what was written with the token, and see."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from herd.generate.json_guard import DEEPEST, JsonGuard, Suspects

PIECES = [
    *(
        b'"',
        b"a",
        b"b",
        b'a"',
        b'":',
        b': "',
        b"1",
        b"12",
        b"e",
        b"e9",
        b"99",
        b"-",
        b".",
        b", ",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(b'{"a": ', b', "a"', b'"},', b"[[", b'"a": 1, "a"', b'": 1, "b"', b'"b", "a"', b"\\", b'\\"', b"\\\\", b"tru"),
]


def reason_against(text):
    """Why the beginning of a JSON text breaks a rule, by its own slow reading; "" if it does not."""
    stack, at = [], 0
    while at < len(text):
        character = text[at]
        if character == '"':
            end = at + 1
            while end < len(text) and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            if end >= len(text):
                return ""
            if stack and stack[-1] is not None and stack[-1][0]:
                _, keys = stack[-1]
                if text[at + 1 : end] in keys:
                    return "a key twice"
                stack[-1] = (False, keys | {text[at + 1 : end]})
            at = end
        elif character in "{[":
            stack.append((True, frozenset()) if character == "{" else None)
            if len(stack) > DEEPEST:
                return "too deep"
        elif character in "}]":
            stack = stack[:-1]
        elif character == "," and stack and stack[-1] is not None:
            stack[-1] = (True, stack[-1][1])
        at += 1
    return ""


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.integers(0, 2**32 - 1))
def test_only_what_breaks_a_rule_is_taken_from_a_mask(wish, seed):
    """A walk over pieces as a grammar would allow them: here all whose text can still become JSON."""
    rng, suspects, text = np.random.default_rng(seed), Suspects(PIECES), ""
    guard = JsonGuard(suspects)
    for piece in wish:
        allowed = np.array([may_go_on(text + other.decode()) for other in PIECES])
        mask = allowed.copy()
        guard.narrow(mask)
        for token in np.flatnonzero(allowed):
            longer = text + PIECES[token].decode()
            if not in_number(longer):
                assert mask[token] == (reason_against(longer) == ""), longer
        if not mask.any():
            return
        token = PIECES.index(piece) if mask[PIECES.index(piece)] else int(rng.choice(np.flatnonzero(mask)))
        text += PIECES[token].decode()
        guard.advance(PIECES[token])


def in_number(text):
    return text[-1:] in "0123456789.-e"


def may_go_on(text):
    """Whether a text is the beginning of some JSON: an error of the reader is at its very end, or there is none."""
    if text.count("}") > text.count("{"):
        return False
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) or error.msg.startswith("Unterminated string")
    return True


def test_numbers_are_kept_within_floats():
    digits = [b"1", b"9", b"e", b"E", b"-", b"+", b".", b"0", b" ", b" 1e999", b"e99"]
    for begin, forbidden in (
        (b"[1e99", b"190"),
        (b"[1e-999", b"190"),
        (b"[" + b"1" * 200, b"190.+-"),
        (b"[" + b"1" * 199, b".+-"),
        (b"[1e9", b""),
    ):
        guard, mask = JsonGuard(Suspects(digits)), np.ones(len(digits), dtype=np.bool_)
        guard.advance(begin)
        guard.narrow(mask)
        assert {digits[i] for i in np.flatnonzero(~mask)} - {b" 1e999", b"e99"} == {bytes([b]) for b in forbidden}
        assert not mask[digits.index(b" 1e999")]
        assert mask[digits.index(b"e99")] or b"e" in begin
