"""Exact duplicates: the same URL crawled twice, the same text under two names."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from herd.corpus.records import CODE, Document
from herd.corpus.step import Found, Noted, Verdict, drop
from herd.progress import Progress

if TYPE_CHECKING:
    from herd.corpus.engine.notes import Notes

U64 = NDArray[np.uint64]
_DATES = ("date", "timestamp", "crawl_date")
_DATE = 32  # bytes of a date that are compared


def normalised(document: Document) -> str:
    """The text without differences that no reader would call different: case and spacing, except in code."""
    if document.lang == CODE:
        return "\n".join(line.rstrip() for line in document.text.strip().split("\n"))
    return " ".join(unicodedata.normalize("NFKC", document.text).casefold().split())


def same_page(url: str) -> str:
    """The URL without what does not change the page: scheme, www., fragment, last slash, letter case of the host."""
    rest = url.split("#", 1)[0].split("://", 1)[-1]
    host, slash, path = rest.partition("/")
    return host.lower().removeprefix("www.") + (slash + path).rstrip("/")


def hashes(texts: Sequence[bytes]) -> tuple[U64, U64]:
    """128 bits of each, in two halves: a chance of 10^-19 that two of 10^10 texts share one."""
    joined = b"".join(hashlib.blake2b(text, digest_size=16).digest() for text in texts)
    pairs = np.frombuffer(joined, "<u8").reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


class UrlDuplicates:
    """Of the dated documents with one URL the newest stays (Llama 3, section 3.1.1), the later of two of one date.

    The date is meta["date"], "timestamp" or "crawl_date" (ISO 8601, compared as text). Undated documents with one URL
    are often parts of one work, so they are left to the comparison of their texts.
    """

    name, edits = "url_duplicates", False

    def notes(self, documents: Sequence[Document], first: int) -> Noted:
        dates = [_date(document) for document in documents]
        places = [place for place, date in enumerate(dates) if date and documents[place].url]
        key, rest = hashes([same_page(documents[place].url).encode("utf-8", "replace") for place in places])
        date = np.array([dates[place].encode("utf-8", "replace")[:_DATE] for place in places], f"S{_DATE}")
        return Noted(np.asarray(places, np.uint32) + np.uint32(first), key, {"rest": rest, "date": date}, {})

    def decide(self, notes: Notes, progress: Progress) -> Found:
        return _all_but_one(notes, "date")

    def verdict(self, document: Document, of: str, value: Any, found: Found) -> Verdict:
        return drop("older_version", f"newer: {of} of {bytes(value).decode('utf-8', 'replace')}")


def _date(document: Document) -> str:
    return next((str(document.meta[key]) for key in _DATES if document.meta.get(key)), "")


class ExactDuplicates:
    """Of equal texts (`normalised`) the first stays."""

    name, edits = "exact_duplicates", False

    def notes(self, documents: Sequence[Document], first: int) -> Noted:
        key, rest = hashes([normalised(document).encode("utf-8", "replace") for document in documents])
        return Noted(np.arange(first, first + len(documents), dtype=np.uint32), key, {"rest": rest}, {})

    def decide(self, notes: Notes, progress: Progress) -> Found:
        return _all_but_one(notes, "")

    def verdict(self, document: Document, of: str, value: Any, found: Found) -> Verdict:
        return drop("same_text", f"same as {of}")


def _all_but_one(notes: Notes, latest: str) -> Found:
    """Of each group of equal keys the first stays; or, of the largest values in the column `latest`, the last."""
    dropped, of, values = [], [], []
    for table in notes.buckets(["rest", latest] if latest else ["rest"]):
        same = [table[name] for name in ("number", latest, "rest", "key") if name]
        order = np.lexsort(same)
        key, rest, number = (table[name][order] for name in ("key", "rest", "number"))
        opens = np.ones(len(key), np.bool_)
        opens[1:] = (key[1:] != key[:-1]) | (rest[1:] != rest[:-1])
        starts = np.flatnonzero(opens)
        sizes = np.diff(starts, append=len(key))
        stays = np.repeat(starts + sizes - 1 if latest else starts, sizes)
        gone = np.arange(len(key)) != stays
        dropped.append(number[gone])
        of.append(number[stays[gone]])
        values.append(table[latest][order][stays[gone]] if latest else np.zeros(int(gone.sum()), np.float32))
    if not dropped:
        return Found.none()
    number = np.concatenate(dropped)
    order = np.argsort(number)
    return Found(number[order], np.concatenate(of)[order], np.concatenate(values)[order], np.empty(0, np.uint64))
