"""The report's tables of scores: every model by capability and language, and by its turn in a conversation."""

from __future__ import annotations

from collections import Counter

from herd.evaluate.suite import SuiteResult
from herd.report.data import ScoreCell
from herd.road.summary.folders import Folders, as_score


def score_cells(folders: Folders) -> tuple[ScoreCell, ...]:
    """The suite's average first, then capabilities, languages, and each with each; models in the order of the road."""
    return tuple(cell for name, result in folders.results.items() for cell in _cells(name, result))


def talk_cells(folders: Folders) -> tuple[ScoreCell, ...]:
    """The probe of conversations: each place of a question for all languages together, no average."""
    return tuple(
        ScoreCell(model, place, "", as_score(one, result.counts()[place]))
        for model, result in folders.talk_results.items()
        for place, one in result.by_capability().items()
    )


def _cells(model: str, result: SuiteResult) -> list[ScoreCell]:
    capabilities = Counter(item.capability for item in result.items)
    langs = Counter(item.lang for item in result.items)
    both = Counter((item.capability, item.lang) for item in result.items)
    return [
        ScoreCell(model, "", "", as_score(result.average, len(result.items))),
        *(ScoreCell(model, c, "", as_score(one, capabilities[c])) for c, one in result.by_capability().items()),
        *(ScoreCell(model, "", lang, as_score(one, langs[lang])) for lang, one in result.by_language().items()),
        *(ScoreCell(model, *key, as_score(one, both[key])) for key, one in result.by_cell().items()),
    ]
