"""Exact verifiers: a reply is right or it is not, and the reason can be counted.

Each function takes the check's spec and the reply; none of them calls a model.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from herd.paddock.interpreter import NotAllowed, run_function
from herd.paddock.task import Check, Task, Verdict
from herd.text.message import Message

OK = Verdict(True, "")
_DIGITS = 18  # longer numbers are no answer to anything asked here, and Python refuses to read the longest


def verify(task: Task, reply: Message | str) -> Verdict:
    """Judge a reply to `task`. A reply that calls a tool where text is asked for is wrong, and the other way round."""
    message = Message("assistant", reply) if isinstance(reply, str) else reply
    return run_check(task.check, message)


def run_check(check: Check, message: Message) -> Verdict:
    if check.kind == "call":
        return _call(check.spec, message)
    if message.tool_calls:
        return Verdict(False, "a tool call where an answer is asked for")
    text = normal(message.content)
    if not text:
        return Verdict(False, "empty")
    return CHECKS[check.kind](check.spec, text)


def normal(text: str) -> str:
    return re.sub(r"[ \t\u00a0]+", " ", unicodedata.normalize("NFC", text)).strip()


def has_words(text: str, words: str) -> bool:
    """Whether `words` stands in `text` between word boundaries, whatever the case."""
    return re.search(rf"(?<![\w]){re.escape(words.casefold())}(?![\w])", text.casefold()) is not None


def _contains(spec: Mapping[str, Any], text: str) -> Verdict:
    if not has_words(text, spec["expected"]):
        return Verdict(False, "the answer is not in the reply")
    if any(has_words(text, other) for other in spec.get("others", ())):
        return Verdict(False, "names another answer as well")
    return OK


def _exact(spec: Mapping[str, Any], text: str) -> Verdict:
    same = text.casefold().rstrip(".।") == normal(spec["expected"]).casefold().rstrip(".।")
    return OK if same else Verdict(False, "not the expected text")


def _number(spec: Mapping[str, Any], text: str) -> Verdict:
    """The last number is the answer, and every worked step `a + b = c` in the reply is true."""
    for a, sign, b, c in re.findall(r"(?<!\d)(\d+) ([+-]) (\d+) = (-?\d+)", text):
        if max(map(len, (a, b, c))) > _DIGITS or (int(a) + int(b) if sign == "+" else int(a) - int(b)) != int(c):
            return Verdict(False, "a worked step is false")
    numbers = re.findall(r"(?:(?<!\w)-)?\d+(?:[.,]\d+)*", text)
    if not numbers:
        return Verdict(False, "no number")
    last = numbers[-1]
    whole = last.removeprefix("-").isdecimal() and len(last) <= _DIGITS
    return OK if whole and int(last) == spec["expected"] else Verdict(False, "another number")


def _call(spec: Mapping[str, Any], message: Message) -> Verdict:
    if len(message.tool_calls) != 1:
        return Verdict(False, "not one well-formed call")
    call = message.tool_calls[0]
    if call.name != spec["name"]:
        return Verdict(False, "another tool")
    return OK if dict(call.parameters) == dict(spec["parameters"]) else Verdict(False, "other parameters")


def _python(spec: Mapping[str, Any], text: str) -> Verdict:
    for arguments, expected in spec["cases"]:
        try:
            found = run_function(text, spec["name"], list(arguments))
            if type(found) is not type(expected) or found != expected:
                return Verdict(False, "a test case fails")
        except NotAllowed as error:
            return Verdict(False, f"code: {error}")
    return OK


def _upper(spec: Mapping[str, Any], text: str) -> Verdict:
    return _contains(spec, text) if text == text.upper() else Verdict(False, "not in capital letters")


def _prefix(spec: Mapping[str, Any], text: str) -> Verdict:
    begins = re.match(rf"{re.escape(spec['word'])}(?!\w)", text)
    return _contains(spec, text) if begins else Verdict(False, "does not begin as asked")


def _suffix(spec: Mapping[str, Any], text: str) -> Verdict:
    ends = re.search(rf"(?<!\w){re.escape(spec['word'])}[.।! ]*$", text)
    return _contains(spec, text) if ends else Verdict(False, "does not end as asked")


def _one_word(spec: Mapping[str, Any], text: str) -> Verdict:
    same = text.casefold().rstrip(".।") == spec["expected"].casefold()
    return OK if same else Verdict(False, "not the one word")


def _json(spec: Mapping[str, Any], text: str) -> Verdict:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # JSON's own error, and numbers of thousands of digits
        return Verdict(False, "not JSON")
    if not isinstance(value, dict) or not isinstance(value.get("answer"), str):
        return Verdict(False, "JSON without an answer")
    return _contains(spec, value["answer"])


CHECKS: Mapping[str, Callable[[Mapping[str, Any], str], Verdict]] = {
    "contains": _contains,
    "exact": _exact,
    "number": _number,
    "python": _python,
    "upper": _upper,
    "prefix": _prefix,
    "suffix": _suffix,
    "one_word": _one_word,
    "json": _json,
}
