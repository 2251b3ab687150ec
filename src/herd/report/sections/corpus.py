"""Section 2: what the corpus kept, what it dropped, and why."""

from __future__ import annotations

from collections.abc import Iterable

from herd.report.data import Corpus, CurationStep, MixShare, PlantedNoise, RemovedDocument, Score
from herd.report.html import Child, Html, join, tag
from herd.report.numbers import count, finite, percent, score, shorten
from herd.report.parts import bar, facts, long_text, more, note, section, subheading, table, warning
from herd.report.plot import series_class

EXAMPLES_PER_REASON = 3
EXAMPLES = 60
ESTIMATED = "Tokens are counted after the last step; before it they are estimated from characters, at the same rate."


def corpus_section(corpus: Corpus | None) -> Html:
    lead = "Every document that was dropped was dropped by a step, for a reason. Nothing is lost in silence."
    if corpus is None:
        return section("corpus", "The corpus", lead)
    return section(
        "corpus",
        "The corpus",
        lead,
        _totals(corpus),
        *[warning(text) for text in corpus.warnings],
        *[warning(tag("strong", step.name), ": ", step.warning) for step in corpus.steps if step.warning],
        _steps(corpus.steps),
        _planted(corpus.planted),
        _mix(corpus.mix, corpus.mix_notes),
        _examples(corpus.examples),
    )


def _totals(corpus: Corpus) -> Html | None:
    if not corpus.steps:
        return None
    came, kept = corpus.steps[0].documents_in, corpus.steps[-1].documents_out
    share = kept / came if kept is not None and came else None
    return facts(
        [
            ("Documents read", count(came)),
            ("Kept", f"{count(kept)} ({percent(share)})" if share is not None else count(kept)),
            ("Tokens kept", count(corpus.steps[-1].tokens_out)),
        ]
    )


def _steps(steps: tuple[CurationStep, ...]) -> Html | None:
    if not steps:
        return None
    most = max(step.documents_in or 0 for step in steps) or 1
    rows = []
    for step in steps:
        gone = sum(step.removed.values())
        if step.documents_in is not None and step.documents_out is not None:
            gone = step.documents_in - step.documents_out
        rows.append(
            (
                step.name,
                count(step.documents_in),
                count(gone),
                count(step.documents_out),
                bar((step.documents_out or 0) / most),
                count(step.tokens_out),
                _reasons(step),
            )
        )
    head = ("Step", "In", "Removed", "Out", "", "Tokens out", "Removed because")
    return tag(
        "div",
        subheading("Step by step"),
        table("Documents by curation step", head, rows, numeric=(1, 2, 3, 5), class_="bars steps stack"),
        note(ESTIMATED) if any(step.tokens_out for step in steps) else None,
    )


def _reasons(step: CurationStep) -> Child:
    ordered = sorted(step.removed.items(), key=lambda item: -item[1])
    return join((tag("span", f"{reason} {count(many)}", class_="reason") for reason, many in ordered), " ")


def _planted(planted: tuple[PlantedNoise, ...]) -> Html | None:
    if not planted:
        return None
    rows = [(one.kind, count(one.planted), count(one.caught), score(_recall(one))) for one in planted]
    return tag(
        "div",
        subheading("Planted noise"),
        note(
            "Bad pages were put among the documents on purpose, under a source that is not trusted. Recall is the "
            "share that curation took out again. They are the world’s own; those of real sites are harder."
        ),
        table("Recall on planted noise", ("Kind", "Planted", "Caught", "Recall"), rows, numeric=(1, 2, 3)),
    )


def _recall(one: PlantedNoise) -> Score | None:
    if one.recall is not None or not one.planted or one.caught is None:
        return one.recall
    return Score(one.caught / one.planted, n=one.planted)


def _mix(mix: tuple[MixShare, ...], notes: tuple[str, ...]) -> Html | None:
    if not mix:
        return None
    cells = [(share.source, share.lang, count(share.documents), count(share.tokens)) for share in mix]
    return tag(
        "div",
        subheading("What the models read"),
        [note(text) for text in notes],
        tag("div", _shares("By source", mix, "source"), _shares("By language", mix, "lang"), class_="pair"),
        more(
            "Every source in every language",
            table("Mix", ("Source", "Language", "Documents", "Tokens"), cells, numeric=(2, 3)),
        ),
    )


def _shares(title: str, mix: Iterable[MixShare], key: str) -> Html:
    sums: dict[str, float] = {}
    for share in mix:
        name = share.source if key == "source" else share.lang
        sums[name] = sums.get(name, 0.0) + (finite(share.tokens) or 0.0)
    total, most = sum(sums.values()) or 1.0, max(sums.values()) or 1.0
    style = series_class(0 if key == "source" else 2)
    rows = [
        (shorten(name, 40), percent(tokens / total), bar(tokens / most, style))
        for name, tokens in sorted(sums.items(), key=lambda item: -item[1])
    ]
    return table(f"{title}, share of tokens", (title, "Tokens", ""), rows, numeric=(1,), class_="bars")


def _examples(examples: tuple[RemovedDocument, ...]) -> Html | None:
    """A few of each reason: a step that removed thousands would bury the others."""
    groups: dict[tuple[str, str], list[RemovedDocument]] = {}
    for document in examples:
        groups.setdefault((document.step, document.reason), []).append(document)
    if not groups:
        return None
    chosen = [document for held in groups.values() for document in held[:EXAMPLES_PER_REASON]][:EXAMPLES]
    return tag(
        "div",
        subheading("Removed, for example"),
        more(f"{len(chosen)} of the removed documents, with the reason", *[_example(document) for document in chosen]),
    )


def _example(document: RemovedDocument) -> Html:
    return tag(
        "article",
        tag(
            "div",
            tag("span", f"{document.step}: {document.reason}", class_="reason"),
            " ",
            tag(
                "span",
                " · ".join(part for part in (document.lang, document.source, document.id) if part),
                class_="where",
            ),
        ),
        long_text(document.text, shown=240, most=1500),
        class_="removed",
    )
