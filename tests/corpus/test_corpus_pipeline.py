"""curate(): verdicts with reasons, loud warnings, the same bytes for the same input."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpus_texts import changed, clean, contact_pages, foreign, framed, menus

from herd.corpus.documents import Document, Unreadable
from herd.corpus.pipeline import build_steps, curate, read_kept
from herd.corpus.settings import STEPS, CurateSettings
from herd.corpus.step import CorpusStep, ManyStep, Step, Verdict, drop
from herd.errors import InputError, NoEffectError, SettingError
from herd.files import read_jsonl
from herd.progress import Silent


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def planted() -> dict[str, list[Document]]:
    rng = random.Random(9)
    pages = clean(600)
    return {
        "clean": pages,
        "copy": [replace(page, id=f"copy-{k}", source="web") for k, page in enumerate(pages[::10])],
        "near": [
            replace(page, id=f"near-{k}", text=page.text + f" {changed('one two three', 1, rng)}", source="web")
            for k, page in enumerate(pages[1::10])
        ],
        "foreign": foreign(60),
        "contact": contact_pages(60),
        "menu": menus(60),
        "framed": framed(60),
    }


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.iterdir()) for row in read_jsonl(path)]


def test_planted_pages_are_removed_and_clean_ones_kept(tmp_path: Path) -> None:
    groups = planted()
    everything = [document for group in groups.values() for document in group]
    random.Random(1).shuffle(everything)
    report = curate(everything, CurateSettings(), tmp_path)
    kept = {document.id: document for document in read_kept(tmp_path)}
    removed = {row["id"]: row for row in rows(tmp_path / "removed")}
    assert set(kept) | set(removed) == {document.id for document in everything}
    assert not set(kept) & set(removed)
    for name in ("foreign", "contact", "menu"):
        recall = sum(document.id in removed for document in groups[name]) / len(groups[name])
        assert recall >= 0.95, name
    originals = [document.id for document in groups["clean"]]
    for name, step in (("copy", 10), ("near", 10)):
        offset = 0 if name == "copy" else 1
        both = [(document.id, originals[offset + step * k]) for k, document in enumerate(groups[name])]
        assert sum(a in removed or b in removed for a, b in both) / len(both) >= 0.95, name
        assert all(a in kept or b in kept for a, b in both), "one of each pair stays"
    framed_kept = [kept[document.id] for document in groups["framed"] if document.id in kept]
    assert len(framed_kept) >= 0.95 * len(groups["framed"])
    assert not any("cookies" in document.text or "Home |" in document.text for document in framed_kept)
    lost = [name for k, name in enumerate(originals) if k % 10 > 1 and name not in kept]
    assert len(lost) <= 0.02 * len(originals)
    assert report.documents_out == len(kept)


def test_the_report_adds_up(tmp_path: Path) -> None:
    groups = planted()
    unreadable = [Unreadable("a.bin", "", "binary"), Unreadable("b.jsonl", "line 2", "bad_json", "x")]
    curate([*groups["clean"], *unreadable, *groups["menu"]], CurateSettings(), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [step["name"] for step in report["steps"]] == list(STEPS)
    count = report["documents_in"]
    for step in report["steps"]:
        assert step["documents_in"] == count
        count -= sum(step["removed"].values())
        assert step["documents_out"] == count
        assert all(len(examples) <= 10 for examples in step["examples"].values())
        assert set(step["examples"]) == set(step["removed"]) | set(step["edited"])
    assert count == report["documents_out"] == len(rows(tmp_path / "kept"))
    for shares in (report["kept_by_source"], report["kept_by_lang"]):
        assert sum(share["documents"] for share in shares.values()) == count
    assert report["unreadable_count"] == 2
    assert report["unreadable_by_reason"] == {"binary": 1, "bad_json": 1}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    documents = [document for group in planted().values() for document in group]
    for name in ("a", "b"):
        curate(documents, CurateSettings(), tmp_path / name)
    assert everything_in(tmp_path / "a", "counts") == everything_in(tmp_path / "b", "counts")  # those hold fingerprints


def everything_in(folder: Path, *but: str) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name not in but]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_step_that_changes_nothing_says_so(tmp_path: Path) -> None:
    progress = Notes()
    report = curate(clean(40), CurateSettings(steps=("length",)), tmp_path, progress)
    assert report.warnings == ["step length removed nothing and changed nothing"]
    assert any("removed nothing" in note for note in progress.notes)


def test_a_step_that_removes_everything_stops_the_run_and_keeps_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(NoEffectError, match="'length' removed every document"):
        curate(clean(20), CurateSettings(min_words=10_000), tmp_path)
    assert {row["reason"] for row in rows(tmp_path / "removed")} == {"too_short"}
    assert "removed all 20" in json.loads((tmp_path / "report.json").read_text())["warnings"][-1]


def test_no_document_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no document"):
        curate([Unreadable("a", "", "binary")], CurateSettings(), tmp_path)


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(SettingError, match=r"(?s)'dedup'.*near_duplicates"):
        build_steps(CurateSettings(steps=("dedup",)))


def test_every_step_is_one_of_the_three_kinds() -> None:
    for step in build_steps(CurateSettings()):
        assert sum(isinstance(step, kind) for kind in (Step, ManyStep, CorpusStep)) == 1


def test_repeated_ids_become_distinct(tmp_path: Path) -> None:
    progress = Notes()
    twice = [replace(document, id="same") for document in clean(3)]
    curate(twice, CurateSettings(steps=("length",)), tmp_path, progress)
    assert [document.id for document in read_kept(tmp_path)] == ["same", "same~2", "same~3"]
    assert any("suffix" in note for note in progress.notes)


def test_a_step_of_ones_own(tmp_path: Path) -> None:
    class NoVesper:
        name = "no_vesper"

        def judge(self, document: Document) -> Verdict:
            return drop("vesper") if "Vesper" in document.text else Verdict(True)

    report = curate(clean(100), CurateSettings(steps=()), tmp_path, extra_steps=[NoVesper()])
    assert report.steps[0].removed["vesper"] > 0
    assert not any("Vesper" in document.text for document in read_kept(tmp_path))


def test_odd_characters_survive(tmp_path: Path) -> None:
    text = "a line with \u2028 separator, \U0001f600 and a lone \ud800 surrogate in it"
    curate([Document("odd", text, "en", "s")], CurateSettings(steps=STEPS), tmp_path)
    assert next(read_kept(tmp_path)).text == text.replace("\ud800", "?")
