"""Exact duplicates: the same URL crawled twice, the same text under two names."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

from herd.corpus.records import CODE, Document
from herd.corpus.step import KEEP, Verdict, drop

_DATES = ("date", "timestamp", "crawl_date")


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


class UrlDuplicates:
    """Of the dated documents with one URL the newest stays (Llama 3, section 3.1.1).

    The date is meta["date"], "timestamp" or "crawl_date" (ISO 8601, compared as text). Undated documents with one URL
    are often parts of one work, so they are left to the comparison of their texts.
    """

    name = "url_duplicates"

    def judge_all(self, documents: Sequence[Document]) -> Iterable[Verdict]:
        newest: dict[str, int] = {}
        dates = [_date(document) for document in documents]
        pages = [
            same_page(document.url) if document.url and date else ""
            for document, date in zip(documents, dates, strict=True)
        ]
        for index, page in enumerate(pages):
            if page and (page not in newest or dates[newest[page]] <= dates[index]):
                newest[page] = index
        for index, page in enumerate(pages):
            if not page or newest[page] == index:
                yield KEEP
            else:
                yield drop("older_version", f"newer: {documents[newest[page]].id} of {dates[newest[page]]}")


def _date(document: Document) -> str:
    return next((str(document.meta[key]) for key in _DATES if document.meta.get(key)), "")


class ExactDuplicates:
    """Of equal texts (`normalised`) the first stays."""

    name = "exact_duplicates"

    def judge_all(self, documents: Sequence[Document]) -> Iterable[Verdict]:
        first: dict[bytes, str] = {}
        for document in documents:
            key = hashlib.blake2b(normalised(document).encode("utf-8", "replace"), digest_size=16).digest()
            original = first.setdefault(key, document.id)
            yield KEEP if original is document.id else drop("same_text", f"same as {original}")
