"""The page as a whole: well formed, self-contained, complete, and honest about what does not hold."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import re
from pathlib import Path

import pytest
from page_check import Page
from report_fixture import full_report

from herd.errors import ArtifactError, FormatError
from herd.report.claims import Claim
from herd.report.data import (
    AnnouncementLine,
    Corpus,
    Fp8Check,
    ReportData,
    Round,
    RunFacts,
    Scaling,
    Teaching,
)
from herd.report.page import CONTENTS, render, write_report


@pytest.fixture(scope="module")
def source() -> str:
    return render(full_report())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_every_section_of_the_contents_is_there(page: Page) -> None:
    ids = page.values("id")
    assert [ident for ident, _ in CONTENTS if ident not in ids] == []
    assert "Not part of this run" not in page.text


def test_ids_are_unique_and_links_lead_to_them(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = page.values("href")
    assert links
    assert [link for link in links if not link.startswith("#") or link[1:] not in ids] == []
    labels = page.values("aria-labelledby")
    assert [label for label in labels if label not in ids] == []


def test_nothing_is_loaded_from_anywhere(source: str, page: Page) -> None:
    assert page.values("src") == []
    assert page.tags() & {"img", "link", "iframe", "object", "embed", "base", "audio", "video"} == set()
    assert "@import" not in source
    assert re.findall(r"url\(", source) == []
    assert re.findall(r"https?://", source) == []


def test_only_the_one_script_may_run(source: str, page: Page) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert [name for _, attrs in page.elements for name in attrs if name.startswith("on")] == []


def test_headings_go_down_one_step_at_a_time(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_drawing_has_a_name_and_every_table_a_caption_and_heads(page: Page) -> None:
    outer = [attrs for tag, attrs in page.elements if tag == "svg" and ("role" in attrs or "aria-hidden" in attrs)]
    drawings = [attrs for attrs in outer if attrs.get("role") == "img"]
    assert len(drawings) >= 8
    assert [attrs for attrs in drawings if not attrs.get("aria-label")] == []
    tags = [tag for tag, _ in page.elements]
    assert tags.count("caption") == tags.count("table")
    heads = [attrs.get("scope") for tag, attrs in page.elements if tag == "th"]
    assert set(heads) == {"col", "row"}


def test_no_element_has_a_width_that_a_phone_cannot_hold(source: str, page: Page) -> None:
    widths = [width for _, attrs in page.elements if (width := attrs.get("width"))]
    assert [width for width in widths if not width.endswith("%") and float(width) > 200] == []
    assert re.findall(r"(?<!max-)(?<!min-)width:\s*\d{3,}px", source) == []


def test_the_file_stays_small(source: str) -> None:
    assert len(source.encode()) < 3_000_000


def test_rendering_twice_gives_the_same_page(source: str) -> None:
    assert render(full_report()) == source


def test_red_stands_exactly_where_a_claim_does_not_hold() -> None:
    good = Claim("recall", "at least 0.95", 0.97, (0.95, 0.99), True, "herd curate")
    bad = Claim("teaching", "at least 5 points", 2.0, None, False, "herd evaluate")
    lines = (AnnouncementLine("Eight languages", "", "all over 70 %", True), AnnouncementLine("A hub", holds=None))
    holding = Page(render(ReportData("nano", claims=(good,), announcement=lines)))
    assert holding.classes() & {"fails", "failing", "fails-line"} == set()
    assert "does not hold" not in holding.text
    assert "Claims of this run: 1 of 1 holds." in holding.text

    failing = Page(render(ReportData("nano", claims=(good, bad), announcement=lines)))
    assert {"fails", "failing", "fails-line"} <= failing.classes()
    assert "Claims of this run: 1 of 2 hold, 1 does not:" in failing.text
    assert failing.text.count("✗ does not hold") == 2, "at the top, and at the claim"
    assert failing.text.index("✗ does not hold teaching") < failing.text.index("Not part of this run.")
    assert "#claim-2" in failing.values("href")


def test_an_announcement_line_that_does_not_hold_is_named_at_the_top() -> None:
    lines = (AnnouncementLine("Eight languages", "herd evaluate", "th at 41 %", False),)
    found = Page(render(ReportData("nano", announcement=lines)))
    assert "#line-1" in found.values("href")
    assert found.text.count("Eight languages") == 2


def test_an_empty_run_says_so_in_every_section() -> None:
    page = Page(render(ReportData("nothing")))
    assert page.text.count("Not part of this run.") == len(CONTENTS) - 1
    assert "No model was made in this run." in page.text
    assert "No claim was checked in this run." in page.text


def test_sections_that_are_there_but_empty_do_not_break_the_page() -> None:
    empty = ReportData(
        "hollow",
        RunFacts(),
        corpus=Corpus(),
        scaling=Scaling(),
        rounds=(Round("Round 1"),),
        teaching=Teaching(),
        fp8=Fp8Check(),
    )
    text = Page(render(empty)).text
    assert "nan" not in text.lower().split()


def test_a_refused_fit_says_why() -> None:
    page = Page(render(ReportData("pico", scaling=Scaling(refused="two budgets cannot carry a power law"))))
    assert "two budgets cannot carry a power law" in page.text


def test_what_was_cut_is_counted() -> None:
    data = full_report()
    long = dataclasses.replace(data, conversations=data.conversations * 40)
    page = Page(render(long))
    assert "160 more are in the run's folder" in page.text
    assert len(render(long).encode()) < 3_000_000


def test_report_json_gives_the_same_page(tmp_path: Path, source: str) -> None:
    full_report().save(tmp_path / "report.json")
    loaded = ReportData.load(tmp_path / "report.json")
    assert loaded == full_report()
    write_report(loaded, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == source


def test_a_wrong_report_json_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        ReportData.load(tmp_path / "missing.json")
    (tmp_path / "cut.json").write_text('{"recipe": "nano", "mod', encoding="utf-8")
    with pytest.raises(FormatError, match=r"cut\.json"):
        ReportData.load(tmp_path / "cut.json")
    with pytest.raises(FormatError, match="did you mean 'corpus'") as unknown:
        ReportData.from_json({"recipe": "nano", "korpus": None}, "report.json")
    assert unknown.value.where == "report.json"
    with pytest.raises(FormatError, match=r"models\[0\]\.parameters"):
        ReportData.from_json({"recipe": "nano", "models": [{"name": "a", "parameters": "many"}]}, "r")
    with pytest.raises(FormatError, match="'recipe' is missing"):
        ReportData.from_json({}, "r")
