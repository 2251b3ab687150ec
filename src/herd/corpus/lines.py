"""Lines that too many documents share: menus, cookie notices, footers.

Llama 3, section 3.1.1: lines seen more than 6 times in each bucket of 30 million documents are removed, here of one
language. A line is counted once for each document, so that a refrain or a speaker's name
inside one text is not taken for boilerplate.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from herd.corpus.records import CODE, Document
from herd.corpus.step import KEEP, Found, Noted, Verdict, drop, edit
from herd.progress import Progress

if TYPE_CHECKING:
    from herd.corpus.engine.notes import Notes

U64 = NDArray[np.uint64]
_TOGETHER = 30_000_000  # documents of a bucket

_DIGITS = re.compile(r"\d+")
_BLANKS = re.compile(r"\n{3,}")
_FENCE = re.compile(r"^ *(?:```|~~~)", re.MULTILINE)
_SPAN = re.compile(r"\s*`[^`\n]+`\s*")
_MIN_LEFT = 0.2  # of the characters: what is left of a page that was mostly frame is no text
_MIN_CHARACTERS = 4  # shorter lines are brackets, bullets and list numbers: structure, not boilerplate
_SPEECH = 20  # a shorter line that ends a sentence is speech ("— Oui."), which menus are not
_SENTENCE_ENDS = (".", "!", "?", "…", "»", "”", '"', "।")


def line_key(line: str) -> str:
    """A line without what differs between two prints of the same boilerplate: case, spacing, numbers.

    Empty for a line that is none: too short, without a letter, or speech.
    """
    key = " ".join(line.casefold().split())
    if len(key) < _SPEECH and key.endswith(_SENTENCE_ENDS):
        return ""
    key = _DIGITS.sub("0", key)
    return key if len(key) >= _MIN_CHARACTERS and any(map(str.isalpha, key)) else ""


def in_fences(parts: Sequence[str]) -> list[bool]:
    """Which parts (lines or paragraphs) belong to a fenced block of code, its fences included."""
    inside, found = False, []
    for part in parts:
        fences = len(_FENCE.findall(part)) if "```" in part or "~~~" in part else 0
        found.append(inside or fences > 0)
        inside ^= fences % 2 == 1
    return found


def is_code_span(part: str) -> bool:
    """Nothing but one span of inline code, as the commands of a manual page are."""
    return _SPAN.fullmatch(part) is not None


def in_code(parts: Sequence[str]) -> list[bool]:
    """Which parts are code: fenced, or one span of inline code."""
    return [fenced or is_code_span(part) for part, fenced in zip(parts, in_fences(parts), strict=True)]


class RepeatedLines:
    """Remove lines that stand in more than `repeats` documents; drop a document that is left without a line.

    Fenced code keeps its lines: `}` and `return None` are no boilerplate. A line counts for its language, and for the
    30 million documents, in the order of reading, that it stands among.
    """

    name, edits = "repeated_lines", True

    def __init__(self, repeats: int = 6, trusted: Sequence[str] = ()) -> None:
        self._repeats, self._trusted = repeats, frozenset(trusted)

    def notes(self, documents: Sequence[Document], first: int) -> Noted:
        rows, keys = [np.empty(0, np.uint32)], [np.empty(0, np.uint64)]
        for row, document in enumerate(documents, first):
            if self._reads(document):
                found = {line_key(line) for line in set(document.text.split("\n"))} - {""}
                keys.append(np.fromiter((_hashed(document.lang, key) for key in found), np.uint64, len(found)))
                rows.append(np.full(len(found), row, np.uint32))
        return Noted(np.concatenate(rows), np.concatenate(keys), {}, {})

    def decide(self, notes: Notes, progress: Progress) -> Found:
        frequent = [np.empty(0, np.uint64)]
        for table in notes.buckets():
            keys, counts = np.unique(among(table["key"], table["number"]), return_counts=True)
            frequent.append(keys[counts > self._repeats])
        return replace(Found.none(), keys=np.unique(np.concatenate(frequent)))

    def verdict(self, document: Document, of: str, value: Any, found: Found) -> Verdict:
        """`value` is the document's number."""
        return self._judge(document, lambda key: _is_in(document.lang, key, int(value), found.keys))

    def _reads(self, document: Document) -> bool:
        return document.lang != CODE and document.source not in self._trusted

    def _judge(self, document: Document, frequent: Callable[[str], bool]) -> Verdict:
        lines = document.text.split("\n")
        code = in_fences(lines)
        left = [line for line, kept in zip(lines, code, strict=True) if kept or not frequent(line_key(line))]
        gone = len(lines) - len(left)
        if not gone:
            return KEEP
        if not any(line_key(line) for line in left):
            return drop("only_repeated_lines", f"all {gone} lines with text stand in other documents")
        text = _BLANKS.sub("\n\n", "\n".join(left)).strip("\n")
        if len(text) < _MIN_LEFT * len(document.text):
            return drop("mostly_repeated_lines", f"{gone} of {len(lines)} lines stand in other documents")
        return edit(replace(document, text=text), "lines_removed", f"{gone} of {len(lines)} lines")


def among(keys: U64, numbers: NDArray[np.int64]) -> U64:
    """Keys of lines, parted by the 30 million documents that they stand among."""
    return keys ^ (numbers.astype(np.uint64) // np.uint64(_TOGETHER) * np.uint64(0x9E3779B97F4A7C15))


def _hashed(lang: str, key: str) -> int:
    digest = hashlib.blake2b(f"{lang}\0{key}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _is_in(lang: str, key: str, number: int, keys: U64) -> bool:
    if not key:
        return False
    wanted = among(np.array([_hashed(lang, key)], np.uint64), np.array([number]))[0]
    place = int(np.searchsorted(keys, wanted))
    return place < len(keys) and bool(keys[place] == wanted)
