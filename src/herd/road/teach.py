"""Stages `small-taught` and `small-alone`: one student, prompts and budget, with the flagship's answers or its own.

Artifacts: the model folder; teach.json (all counts); accepted.jsonl.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from herd.posttrain.records import read_accepted, write_accepted
from herd.posttrain.teach import TeachInputs, learn_alone, teach
from herd.road.means import dialogues, means
from herd.road.pretrain import save_folder
from herd.road.settings import TeachOf
from herd.road.world import read_tasks
from herd.stages import Context
from herd.text import Tokenizer
from herd.weights.hf import load_model


def run(ctx: Context) -> Mapping[str, Any]:
    settings: TeachOf = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    world = ctx.inputs["world"]
    rounds = [ctx.inputs[name] for name in sorted(ctx.inputs) if name.startswith("round-")]
    inputs = TeachInputs(
        student=load_model(ctx.inputs["student"], device=ctx.device),
        teacher=load_model(ctx.inputs["teacher" if settings.kind == "taught" else "student"], device=ctx.device),
        tasks=read_tasks(world, "prompts"),
        seed_dialogues=dialogues(read_tasks(world, "seed")),
        means=means(tokenizer, settings.suite),
        teacher_accepted=[one for folder in rounds for one in read_accepted(folder / "accepted.jsonl")],
    )
    train = teach if settings.kind == "taught" else learn_alone
    result = train(inputs, settings.teach, ctx.scratch / "teach", ctx.progress)
    save_folder(ctx, result.model, tokenizer, {"kind": settings.kind}, instruct=True)
    shutil.copy(ctx.scratch / "teach" / "teach.json", ctx.out / "teach.json")
    write_accepted(ctx.out / "accepted.jsonl", result.accepted)
    return {"accepted": len(result.accepted)}
