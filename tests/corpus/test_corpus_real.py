"""Real text: languages, extraction from real pages, a user's folder. Needs $HERD_DATA or ../shared/data."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from herd.corpus.documents import LANGUAGES, Document, read_documents
from herd.corpus.extract import extract
from herd.corpus.language import Language
from herd.corpus.pipeline import curate, read_kept
from herd.corpus.settings import CurateSettings, ReadSettings

DATA = Path(os.environ.get("HERD_DATA", Path(__file__).parents[2].parent / "shared/data"))


def folder(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"no real data: {DATA / name} is missing (set HERD_DATA)")
    return DATA / name


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        yield from map(json.loads, handle)


@pytest.mark.slow
@pytest.mark.parametrize("lang", LANGUAGES)
def test_language_of_real_text(lang: str, record_property: Any) -> None:
    texts = [row["text"] for path in sorted(folder("corpora").joinpath(lang).glob("*.gz")) for row in rows(path)]
    pages = [Document(str(k), text[:2000], "", "x") for k, text in enumerate(texts[::3]) if len(text) > 100]
    verdicts = list(Language().judge_many(pages))
    accuracy = sum(bool(v.edited and v.edited.lang == lang) for v in verdicts) / len(verdicts)
    record_property("accuracy", accuracy)
    print(f"{lang}: {accuracy:.4f} of {len(pages)}")
    assert accuracy >= 0.97


@pytest.mark.slow
def test_declared_real_text_is_kept() -> None:
    root = folder("corpora")
    pages = [
        Document(row["id"], row["text"], lang, "x")
        for lang in LANGUAGES
        for path in sorted((root / lang).glob("*.gz"))
        for row in list(rows(path))[::5]
    ]
    kept = [verdict.keep for verdict in Language().judge_many(pages)]
    assert sum(kept) / len(kept) >= 0.995


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


@pytest.mark.slow
def test_articles_are_extracted() -> None:
    """F1 over words against the articles that people marked in real news and blog pages."""
    scores = []
    for row in rows(folder("web") / "article_extraction.jsonl.gz"):
        wanted, found = words(row["article_body"]), words(extract(row["html"]).text)
        common = (wanted & found).total()
        scores.append(2 * common / max(1, wanted.total() + found.total()))
    print(f"mean F1 {sum(scores) / len(scores):.3f} of {len(scores)} pages")
    assert sum(scores) / len(scores) > 0.8


@pytest.mark.slow
def test_wanted_passages_stay_and_unwanted_go() -> None:
    """F1 over the marked passages of the trafilatura evaluation."""
    hit = miss = wrong = 0
    for row in rows(folder("web") / "trafilatura_eval.jsonl.gz"):
        text = " ".join(extract(row["html"]).text.split())
        wanted = [" ".join(passage.split()) in text for passage in row["with"]]
        hit += sum(wanted)
        miss += len(wanted) - sum(wanted)
        wrong += sum(" ".join(passage.split()) in text for passage in row["without"])
    precision, recall = hit / (hit + wrong), hit / (hit + miss)
    f1 = 2 * precision * recall / (precision + recall)
    print(f"passages: precision {precision:.3f} recall {recall:.3f} F1 {f1:.3f}")
    assert f1 > 0.8


@pytest.mark.slow
def test_a_users_folder_of_real_text(tmp_path: Path) -> None:
    """What `herd raise nano --documents` does, on a part of every file."""
    items = list(read_documents(folder("corpora"), settings=ReadSettings(max_characters=6_000_000)))
    documents = [item for item in items if isinstance(item, Document)]
    assert {item.lang for item in documents} == {*LANGUAGES, "code"}
    report = curate(items, CurateSettings(), tmp_path)
    assert report.unreadable_by_reason.keys() == {"over_cap"}
    assert 0.85 * len(documents) < report.documents_out == len(list(read_kept(tmp_path))) < len(documents)
