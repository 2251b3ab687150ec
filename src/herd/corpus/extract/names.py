"""What an element's names (class, id, role, itemprop) say about its place in the page: text, frame, or never text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import IntEnum
from functools import cache, lru_cache
from importlib.resources import files


class Role(IntEnum):
    NONE = 0
    MAIN = 1  # named as the text
    LINKED = 2  # named as what leads elsewhere; text if it does not
    SOFT = 3  # named as part of the frame; a page whose text is all in it overrules the name
    COMMENTS = 4  # what readers wrote below
    NEVER = 5  # a menu, or for screen readers only


_BY_TAG = {
    "nav": Role.NEVER, "menu": Role.NEVER, "button": Role.NEVER, "dialog": Role.NEVER, "title": Role.NEVER,
    "aside": Role.SOFT, "footer": Role.SOFT, "figcaption": Role.SOFT,
}  # fmt: skip
_LANDMARKS = {
    "navigation": Role.NEVER, "menu": Role.NEVER, "menubar": Role.NEVER, "dialog": Role.NEVER,
    "alertdialog": Role.NEVER, "search": Role.NEVER, "toolbar": Role.NEVER,
    "complementary": Role.SOFT, "contentinfo": Role.SOFT, "banner": Role.SOFT,
}  # fmt: skip
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_TOLD = re.compile(
    r"(?i)(?<![^\s\"'])(class|id|role|itemprop|style|hidden|aria-hidden)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>]++)))?+"
    r"(?![^\s/>])"
)
_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])|[^a-zA-Z0-9]+")
_ORDER = (Role.NEVER, Role.COMMENTS, Role.MAIN, Role.SOFT, Role.LINKED)  # of the vocabulary: the first that fits
_LONGEST = 400  # characters of names that are looked at


@cache
def _vocabulary() -> tuple[tuple[Role, re.Pattern[str]], ...]:
    """What a run of words that begins so says; the first that fits counts."""
    lists = json.loads((files("herd.corpus") / "data/extraction.json").read_text("utf-8"))
    return tuple((role, _pattern(lists[role.name.lower()])) for role in _ORDER)


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    parts = (re.escape(word.rstrip("*")) + ("" if word.endswith("*") else r"\b") for word in words)
    return re.compile("|".join(parts))


@lru_cache(1 << 16)
def role_of(tag: str, written: str) -> Role:
    """The role of an element by its tag and its attributes as written."""
    own = _BY_TAG.get(tag, Role.NONE)
    if not written or own is Role.NEVER or tag in ("html", "body"):
        return own
    told = {name.lower(): double or single or bare for name, double, single, bare in _TOLD.findall(written)}
    if not told:
        return own
    if _hidden(told):
        return Role.SOFT  # scripts show some of it
    if told.get("itemprop") == "articleBody":
        return Role.MAIN
    landmark = _LANDMARKS.get(told.get("role", ""))
    if landmark is not None:
        return landmark
    return _named(f"{told.get('class', '')} {told.get('id', '')}"[:_LONGEST]) or own


def _hidden(told: dict[str, str]) -> bool:
    style = told.get("style")
    return "hidden" in told or told.get("aria-hidden") == "true" or bool(style and _HIDDEN_STYLE.search(style))


@lru_cache(1 << 16)
def _named(names: str) -> Role:
    words = _BOUNDARY.sub(" ", names).lower().split()
    found = {_beginning(word) and _at(" ".join(words[place : place + 3])) for place, word in enumerate(words)}
    return next((role for role in _ORDER if role in found), Role.NONE)


@cache
def _firsts() -> re.Pattern[str]:
    lists = json.loads((files("herd.corpus") / "data/extraction.json").read_text("utf-8"))
    return _pattern(sorted({phrase.split()[0] for role in _ORDER for phrase in lists[role.name.lower()]}))


@lru_cache(1 << 14)
def _beginning(word: str) -> bool:
    """Whether a phrase of the vocabulary may begin with the word: most do not, and words come again."""
    return _firsts().match(word) is not None


@lru_cache(1 << 14)
def _at(words: str) -> Role:
    return next((role for role, pattern in _vocabulary() if pattern.match(words)), Role.NONE)
