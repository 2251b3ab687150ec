"""Stage `scores-*`: one model on the held-out suite, in lm-evaluation-harness's result layout.

The probe of conversations is asked beside it, and its results lie in `conversation/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from herd.evaluate.harness import RunInfo, save_results
from herd.evaluate.suite import plain
from herd.recipe import SuiteSettings
from herd.road.means import CONVERSATION, scores
from herd.road.world import PROBE, read_tasks
from herd.stages import Context
from herd.text import Tokenizer
from herd.weights.hf import load_model


def run(ctx: Context) -> Mapping[str, Any]:
    settings: SuiteSettings = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    model = load_model(ctx.inputs["model"], device=ctx.device)
    result = scores(model, tokenizer, read_tasks(ctx.inputs["world"], "suite"), settings, progress=ctx.progress)
    info = RunInfo(model=ctx.inputs["model"].name, date=datetime.now(UTC))
    save_results(ctx.out, result, info)
    made = {"average": plain(result.average), **{name: one.value for name, one in result.by_capability().items()}}
    if probe := read_tasks(ctx.inputs["world"], PROBE):
        talk = scores(model, tokenizer, probe, settings, CONVERSATION, ctx.progress)
        save_results(ctx.out / PROBE, talk, info)
        made |= {name: one.value for name, one in talk.by_capability().items()}
    return made
