"""Rules of thumb for single documents: length, and pages that are menus, notices or symbols instead of text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from statistics import median
from typing import Any

from herd.corpus.records import CODE, Document
from herd.corpus.step import KEEP, Verdict, drop, edit
from herd.corpus.words import count_words


class Length:
    """Too short to learn from, or so long that it is a dump."""

    name = "length"

    def __init__(self, min_words: int, max_words: int) -> None:
        self._min, self._max = min_words, max_words

    def judge(self, document: Document) -> Verdict:
        words = count_words(document.text)
        if words < self._min:
            return drop("too_short", f"{words} words, at least {self._min}")
        if words > self._max:
            return drop("too_long", f"{words} words, at most {self._max}")
        return KEEP


@cache
def rules() -> dict[str, Any]:
    rules: dict[str, Any] = json.loads((files("herd.corpus") / "data/boilerplate.json").read_text("utf-8"))
    return rules


@cache
def _notices() -> re.Pattern[str]:
    phrases = [phrase for group in rules()["notices"].values() for phrase in group]
    return re.compile("|".join(map(re.escape, phrases)), re.IGNORECASE)


class Boilerplate:
    """Remove lines that are notices (cookies, scripts); drop pages that are notices, menus or symbols."""

    name = "boilerplate"

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted = frozenset(trusted)

    def judge(self, document: Document) -> Verdict:
        if document.lang == CODE or document.source in self._trusted:
            return KEEP
        lines = [line for line in document.text.split("\n") if line.strip()]
        bad = _shape(document.text, lines)
        if bad:
            return bad
        if not _notices().search(document.text):
            return KEEP
        return _without_notices(document, lines)


def _shape(text: str, lines: Sequence[str]) -> Verdict | None:
    """The page as a picture: what stands on its lines, whatever the words are."""
    limit = rules()["limits"]
    solid = sum(map(len, text.split()))
    readable = sum(1 for character in text if character.isalnum()) + _marks(text)
    if solid and readable / solid < limit["readable_characters"]:
        return drop("symbols", f"{readable / solid:.0%} letters and digits")
    if len(lines) < limit["min_lines"]:
        return None
    dots = sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines)
    if dots > limit["ellipsis_lines"]:
        return drop("ellipsis_lines", f"{dots:.0%} of {len(lines)} lines")
    lengths = [len(line.strip()) for line in lines]
    sentences = sum(line.rstrip().endswith((".", "!", "?", "।", ":", ";", ",", '"', "”")) for line in lines)
    if median(lengths) <= limit["menu_line"] and sentences / len(lines) < limit["menu_sentences"]:
        return drop("menu", f"{len(lines)} lines, half of them up to {median(lengths):.0f} characters")
    return None


def _marks(text: str) -> int:
    """Combining marks of Devanagari and Thai, which isalnum() does not count; 0 quickly for Latin text."""
    if text.isascii():
        return 0
    return sum(1 for c in text if "\u0900" <= c <= "\u0963" and not c.isalnum()) + sum(
        1 for c in text if "\u0e30" <= c <= "\u0e4e" and not c.isalnum()
    )


def _without_notices(document: Document, lines: Sequence[str]) -> Verdict:
    notices = {line for line in lines if _notices().search(line) and len(line) <= rules()["limits"]["notice_line"]}
    if not notices:
        return KEEP
    share = sum(map(len, notices)) / max(1, sum(map(len, lines)))
    if share > rules()["limits"]["notice_page"]:
        return drop("notice", f"{share:.0%} of the page: {min(notices, key=len).strip()[:80]}")
    text = "\n".join(line for line in document.text.split("\n") if line not in notices)
    return edit(replace(document, text=text.strip("\n")), "notices_removed", f"{len(notices)} lines")
