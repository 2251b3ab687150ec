"""What an element's names (class, id, role, itemprop) say about its place in the page: text, frame, or never text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import IntEnum
from functools import cache, lru_cache
from importlib.resources import files

from herd.corpus.extract.scan import attributes


class Role(IntEnum):
    NONE = 0
    MAIN = 1  # named as the text
    SOFT = 2  # named as part of the frame; a page whose text is all in it overrules the name
    COMMENTS = 3  # what readers wrote below
    NEVER = 4  # hidden, or a menu


_BY_TAG = {
    "nav": Role.NEVER, "menu": Role.NEVER, "button": Role.NEVER, "dialog": Role.NEVER, "title": Role.NEVER,
    "aside": Role.SOFT, "footer": Role.SOFT, "figcaption": Role.SOFT,
}  # fmt: skip
_LANDMARKS = {
    "navigation": Role.NEVER, "menu": Role.NEVER, "menubar": Role.NEVER, "dialog": Role.NEVER,
    "alertdialog": Role.NEVER, "search": Role.NEVER, "toolbar": Role.NEVER, "complementary": Role.SOFT, "contentinfo": Role.SOFT,
    "banner": Role.SOFT,
}  # fmt: skip
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_TOLD = re.compile(r"(?i)class|id\s*=|role|itemprop|hidden|style")
_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])|[^a-zA-Z0-9]+")
_LONGEST = 400  # characters of names that are looked at


@cache
def _vocabulary() -> tuple[tuple[Role, re.Pattern[str]], ...]:
    lists = json.loads((files("herd.corpus") / "data/extraction.json").read_text("utf-8"))
    order = (("never", Role.NEVER), ("comments", Role.COMMENTS), ("main", Role.MAIN), ("soft", Role.SOFT))
    return tuple((role, _pattern(lists[name])) for name, role in order)


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    parts = (re.escape(word.rstrip("*")) + ("" if word.endswith("*") else r"\b") for word in words)
    return re.compile(r"\b(?:" + "|".join(parts) + ")")


@lru_cache(1 << 16)
def role_of(tag: str, written: str) -> Role:
    """The role of an element by its tag and its attributes as written."""
    own = _BY_TAG.get(tag, Role.NONE)
    if not written or own is Role.NEVER or tag in ("html", "body") or not _TOLD.search(written):
        return own
    told = attributes(written)
    if _hidden(told):
        return Role.SOFT  # scripts show some of it
    if told.get("itemprop") == "articleBody":
        return Role.MAIN
    landmark = _LANDMARKS.get(told.get("role", ""))
    if landmark is not None:
        return landmark
    return _named(f"{told.get('class', '')} {told.get('id', '')}"[:_LONGEST]) or own


def _hidden(told: dict[str, str]) -> bool:
    return "hidden" in told or told.get("aria-hidden") == "true" or bool(_HIDDEN_STYLE.search(told.get("style", "")))


@lru_cache(1 << 16)
def _named(names: str) -> Role:
    words = _BOUNDARY.sub(" ", names).lower()
    for role, pattern in _vocabulary():
        if pattern.search(words):
            return role
    return Role.NONE
