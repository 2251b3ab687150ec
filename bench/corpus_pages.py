"""Web pages with what people marked in them, and how well an extracted text fits that."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path

DATA = Path(os.environ.get("HERD_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SETS = {
    "articles": DATA / "web" / "article_extraction.jsonl.gz",
    "readable": DATA / "web" / "readability_pages.jsonl.gz",
    "passages": DATA / "web" / "trafilatura_eval.jsonl.gz",
}
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class MarkedPage:
    """`text` is what extraction should give; or passages that it must keep and drop."""

    id: str
    html: str
    text: str = ""
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


def pages(name: str) -> Iterator[MarkedPage]:
    """The pages of a set of `SETS`."""
    with gzip.open(SETS[name], "rt", encoding="utf-8") as lines:
        for number, row in enumerate(map(json.loads, lines)):
            mark = f"{name}/{number}"
            if name == "articles":
                yield MarkedPage(mark, row["html"], row["article_body"])
            elif name == "readable":
                yield MarkedPage(mark, row["html"], _plain(row["expected_html"]))
            else:
                yield MarkedPage(mark, row["html"], "", tuple(row["with"]), tuple(row["without"]))


def _plain(html: str) -> str:
    return unescape(_TAG.sub(" ", html))


def mean_f1(known: Sequence[MarkedPage], texts: Mapping[str, str]) -> float:
    """Mean over pages of F1 over words; of passages over all pages together, as they were published."""
    if known[0].keep or known[0].drop:
        return _passage_f1(known, texts)
    return sum(word_f1(page.text, texts[page.id]) for page in known) / len(known)


def word_f1(wanted: str, found: str) -> float:
    """F1 of two bags of words."""
    one, other = (Counter(re.findall(r"\w+", text.lower())) for text in (wanted, found))
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 1.0


def _passage_f1(known: Sequence[MarkedPage], texts: Mapping[str, str]) -> float:
    hit = wanted = wrong = 0
    for page in known:
        text = " ".join(texts[page.id].split())
        found = sum(" ".join(passage.split()) in text for passage in page.keep)
        wrong += sum(" ".join(passage.split()) in text for passage in page.drop)
        hit, wanted = hit + found, wanted + len(page.keep)
    return 2 * hit / (hit + wrong + wanted) if hit else 0.0
