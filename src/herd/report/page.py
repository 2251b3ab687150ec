"""One self-contained page out of a `ReportData`: no network, no fonts to load, readable without script.

A content security policy forbids everything but the page's own style and the one script with the right hash: should
a text from a corpus ever get through as markup, it can neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from herd.files import write_text
from herd.report.data import Fp8Check, ReportData
from herd.report.html import Html, tag
from herd.report.sections.announcement import announcement_section
from herd.report.sections.conversations import conversations_section
from herd.report.sections.corpus import corpus_section
from herd.report.sections.fp8 import fp8_section
from herd.report.sections.lineage import lineage_section
from herd.report.sections.posttraining import posttraining_section
from herd.report.sections.run_facts import run_section
from herd.report.sections.scaling import scaling_section
from herd.report.sections.scores import scores_section
from herd.report.sections.summary import summary
from herd.report.sections.teaching import teaching_section
from herd.report.sections.training import training_section

CONTENTS = (
    ("summary", "Summary"),
    ("run", "The run"),
    ("corpus", "The corpus"),
    ("training", "Training"),
    ("scaling", "The scaling law"),
    ("posttraining", "Post-training"),
    ("teaching", "The flagship teaches"),
    ("fp8", "FP8 beside BF16"),
    ("scores", "Scores"),
    ("conversations", "Conversations"),
    ("announcement", "The announcement"),
    ("lineage", "Lineage"),
)


def render(data: ReportData) -> str:
    """The whole page as HTML. Never fails on missing or odd data; every text in it is escaped."""
    script = _asset("page.js")
    main = tag(
        "main",
        summary(data),
        run_section(data.run),
        corpus_section(data.corpus),
        training_section(data.training),
        scaling_section(data.scaling),
        posttraining_section(data.rounds),
        teaching_section(data.teaching),
        fp8_section(data.fp8),
        scores_section(data.scores, data.talk_scores),
        conversations_section(data.conversations, data.conversations_note),
        announcement_section(data.announcement, data.claims),
        lineage_section(data.lineage),
    )
    aside = tag("nav", _links(), class_="contents", aria_label="Contents")
    folded = tag(
        "details", tag("summary", "Contents"), tag("nav", _links(), aria_label="Contents"), class_="contents-fold"
    )
    body = tag("body", tag("div", aside, folded, main, class_="page"), tag("script", script))
    return _document(f"{data.recipe}: report of a herd", body, script)


def render_fp8(check: Fp8Check) -> str:
    """A page of the FP8 section alone, as `herd quantize --check` writes it."""
    main = tag("main", tag("h1", check.model), fp8_section(check))
    return _document(f"{check.model}: FP8 beside BF16", tag("body", tag("div", main, class_="page alone")), "")


def _document(title: str, body: Html, script: str) -> str:
    return f"<!DOCTYPE html>\n{tag('html', _head(title, script), body, lang='en')}\n"


def write_report(data: ReportData, path: Path) -> None:
    """Render to `path`, whole or not at all."""
    write_text(path, render(data))


def _head(title: str, script: str) -> Html:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", _asset("style.css")),
    )


def _links() -> Html:
    return tag("ol", [tag("li", tag("a", title, href=f"#{ident}")) for ident, title in CONTENTS])


def _asset(name: str) -> Html:
    """Style and script come with the package; they are the only markup that is not built by `tag`."""
    return Html(files("herd.report").joinpath(name).read_text(encoding="utf-8"))
