"""Stages `flagship-fp8` and `fp8-check`: BF16 to FP8, and what it changed besides scores.

The paper compares distributions of reward scores, because benchmarks missed the damage of an unbounded scale
(section 6.2). Artifacts: a compressed-tensors model folder; check.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from herd.files import read_json, write_json
from herd.quantize.fp8 import quantize_model, save_fp8
from herd.quantize.settings import ATTENTION, FEED_FORWARD, Fp8Policy
from herd.recipe import SuiteSettings
from herd.road.means import scores
from herd.road.outputs import model_output
from herd.road.quality import answers, predictions, rewards
from herd.road.world import read_tasks
from herd.stages import Context
from herd.text import Tokenizer
from herd.weights.hf import load_model


def run(ctx: Context) -> Mapping[str, Any]:
    settings: Fp8Policy = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    model = load_model(ctx.inputs["model"])
    report = quantize_model(model, settings, progress=ctx.progress)
    with model_output(ctx.out) as folder:
        save_fp8(folder, model, tokenizer=tokenizer, herd={}, report=report, instruct=True)
    return {"bytes_bf16": report.bytes_before, "bytes_fp8": report.bytes_after}


def check(ctx: Context) -> Mapping[str, Any]:
    settings: SuiteSettings = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    dev = read_tasks(ctx.inputs["world"], "dev")
    models = tuple(partial(load_model, ctx.inputs[name], device=ctx.device) for name in ("bf16", "fp8"))
    made = read_json(ctx.inputs["fp8"] / "herd.json")
    text = "held-out dialogues of the run, the tokens of answers"
    found = {
        **predictions(
            (models[0], models[1]), answers(tokenizer, dev), tokenizer.decode, text, ctx.scratch, ctx.progress
        ),
        "bytes_bf16": made["metrics"]["bytes_bf16"],
        "bytes_fp8": made["metrics"]["bytes_fp8"],
        "kept": _kept(made["settings"]),
    }
    reward = ctx.inputs["round"] / "reward" if "round" in ctx.inputs else None
    if reward and reward.is_dir():
        first, second = (scores(model(), tokenizer, dev, settings, progress=ctx.progress) for model in models)
        found |= rewards((first, second), dev, reward, tokenizer, ctx.device, ctx.progress)
    write_json(ctx.out / "check.json", found)
    return {"agreement": found["top1_agreement"], "kl": found["kl"]["mean"]}


def _kept(policy: Mapping[str, Any]) -> str:
    """What the settings of a policy leave in BF16, in words."""
    chosen = set(policy["projections"])
    rooms = (("attention", ATTENTION), ("feed-forward", FEED_FORWARD))
    kept = [name for name, leaves in rooms if not chosen & set(leaves)]
    kept += ["norms", "embeddings", *([] if policy.get("head") else ["output"])]
    ends = policy["keep_first"], policy["keep_last"]
    last = f"the first {ends[0]} and last {ends[1]} layers" if any(ends) else ""
    return ", ".join(kept) + (f", and {last}" if last else "")
