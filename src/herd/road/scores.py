"""Stage `scores-*`: one model on the held-out suite, in lm-evaluation-harness's result layout."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from herd.evaluate.harness import RunInfo, save_results
from herd.evaluate.suite import plain
from herd.recipe import SuiteSettings
from herd.road.means import scores
from herd.road.world import read_tasks
from herd.stages import Context
from herd.text import Tokenizer
from herd.weights.hf import load_model


def run(ctx: Context) -> Mapping[str, Any]:
    settings: SuiteSettings = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    model = load_model(ctx.inputs["model"], device=ctx.device)
    result = scores(model, tokenizer, read_tasks(ctx.inputs["world"], "suite"), settings, ctx.progress)
    save_results(ctx.out, result, RunInfo(model=ctx.inputs["model"].name, date=datetime.now(UTC)))
    return {"average": plain(result.average), **{name: one.value for name, one in result.by_capability().items()}}
