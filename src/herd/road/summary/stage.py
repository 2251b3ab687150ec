"""The stage itself: sections put together, verdicts drawn, three files written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from herd.report.claims import write_claims
from herd.report.data import ReportData
from herd.report.page import write_report
from herd.road.settings import Summary
from herd.road.summary.announcement import announcement
from herd.road.summary.claims import claims
from herd.road.summary.conversations import CHOICE, conversations
from herd.road.summary.corpus import corpus
from herd.road.summary.folders import Folders
from herd.road.summary.lineage import lineage, models, run_facts
from herd.road.summary.posttraining import fp8, rounds, teaching
from herd.road.summary.scores import score_cells, talk_cells
from herd.road.summary.training import scaling, training
from herd.stages import Context


def run(ctx: Context) -> Mapping[str, Any]:
    settings: Summary = ctx.settings
    data = report_data(Folders(settings.recipe, ctx.inputs), settings.allowed_error)
    write_claims(ctx.out / "claims.json", data.claims)
    data.save(ctx.out / "report.json")
    write_report(data, ctx.out / "report.html")
    failing = [claim.name for claim in data.claims if not claim.holds]
    for claim in data.claims:
        if not claim.holds:
            ctx.progress.note(f"DOES NOT HOLD: {claim.name}: {claim.measured}")
    return {"claims": len(data.claims), "holding": len(data.claims) - len(failing), "failing": failing}


def report_data(folders: Folders, allowed_error: float) -> ReportData:
    """Everything that the report shows of the run in these folders."""
    found = claims(folders, allowed_error)
    talks = conversations(folders)
    return ReportData(
        recipe=folders.recipe,
        run=run_facts(folders),
        models=models(folders),
        corpus=corpus(folders),
        training=training(folders),
        scaling=scaling(folders, allowed_error),
        rounds=rounds(folders),
        teaching=teaching(folders),
        fp8=fp8(folders),
        scores=score_cells(folders),
        talk_scores=talk_cells(folders),
        conversations=talks,
        conversations_note=CHOICE if talks else "",
        announcement=announcement(folders, found),
        claims=found,
        lineage=lineage(folders),
    )
