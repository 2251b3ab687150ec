"""One library that extracts main text, in a process of its own: told "PART OF", it reads that slice of all pages."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.corpus_pages import SETS, pages

Extract = Callable[[str], str]


def _herd() -> Extract:
    from herd.corpus.extract import extract

    return lambda html: extract(html).text


def _trafilatura(**options: Any) -> Extract:
    import trafilatura

    return lambda html: trafilatura.extract(html, include_comments=False, **options) or ""


def _resiliparse() -> Extract:
    from resiliparse.extract.html2text import extract_plain_text

    return lambda html: extract_plain_text(html, main_content=True)


def _readability() -> Extract:
    from lxml import html as parser
    from readability import Document

    return lambda html: parser.fromstring(Document(html).summary()).text_content()


def _newspaper() -> Extract:
    from newspaper import Article

    def extract(html: str) -> str:
        article = Article("http://localhost/")
        article.download(input_html=html)
        article.parse()
        return article.text

    return extract


def _goose() -> Extract:
    from goose3 import Goose

    goose = Goose({"enable_image_fetching": False})
    return lambda html: goose.extract(raw_html=html).cleaned_text or ""


LIBRARIES: dict[str, Callable[[], Extract]] = {
    "herd": _herd,
    "trafilatura": _trafilatura,
    "trafilatura-fast": lambda: _trafilatura(fast=True),
    "trafilatura-precision": lambda: _trafilatura(favor_precision=True),
    "trafilatura-recall": lambda: _trafilatura(favor_recall=True),
    "resiliparse": _resiliparse,
    "readability": _readability,
    "newspaper": _newspaper,
    "goose": _goose,
}


def _text(extract: Extract, html: str) -> str:
    """A library that fails on a page found no text in it."""
    try:
        return extract(html)
    except Exception:
        return ""


def main(name: str) -> None:
    try:
        extract = LIBRARIES[name]()
    except ImportError:
        print(json.dumps({"bench": name, "missing": True}), flush=True)
        return
    known = [page for of in SETS for page in pages(of)]
    print(json.dumps({"bench": name}), flush=True)
    for line in sys.stdin:
        part, parts = map(int, line.split())
        mine = known[part::parts]
        started = time.perf_counter()
        texts = {page.id: _text(extract, page.html) for page in mine}
        print(json.dumps({"bench": name, "seconds": time.perf_counter() - started, "texts": texts}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
