"""Stages `flagship-fp8` and `fp8-check`: BF16 to FP8, and what it changed besides scores.

The paper compares distributions of reward scores, because benchmarks missed the damage of an unbounded scale
(section 6.2). Artifacts: a compressed-tensors model folder; check.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from herd.devices import device_of
from herd.evaluate.statistics import distribution_shift, wilson
from herd.evaluate.suite import plain
from herd.files import read_json, write_json
from herd.llama.model import Llama
from herd.paddock import Task
from herd.posttrain.training import reward_scorer
from herd.quantize.fp8 import quantize_model, save_fp8
from herd.quantize.settings import Fp8Policy
from herd.recipe import SuiteSettings
from herd.road.means import scores
from herd.road.outputs import model_output
from herd.road.world import read_tasks
from herd.stages import Context
from herd.text import Message, Tokenizer, encode_dialogue, parse_text
from herd.train.packing import collate, pack, packed_row
from herd.train.reward_files import load_reward
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
    wide, narrow = (load_model(ctx.inputs[name], device=ctx.device) for name in ("bf16", "fp8"))
    alike, seen = _agreement(wide, narrow, tokenizer, dev)
    made = read_json(ctx.inputs["fp8"] / "herd.json")
    found: dict[str, Any] = {
        "agreement": plain(wilson(alike, seen)),
        "bytes_bf16": made["metrics"]["bytes_bf16"],
        "bytes_fp8": made["metrics"]["bytes_fp8"],
        "kept": _kept(made["settings"]),
    }
    if "round" in ctx.inputs and (ctx.inputs["round"] / "reward").is_dir():
        found |= _rewards(ctx, wide, narrow, tokenizer, dev, settings)
    write_json(ctx.out / "check.json", found)
    return {"agreement": alike / seen}


def _kept(policy: Mapping[str, Any]) -> str:
    ends = f"the first {policy['keep_first']} and last {policy['keep_last']} layers"
    return f"attention, norms, embeddings, output, and {ends}"


def _rewards(
    ctx: Context, wide: Llama, narrow: Llama, tokenizer: Tokenizer, tasks: Sequence[Task], settings: SuiteSettings
) -> dict[str, Any]:
    """Reward scores of both models' own replies to the same prompts, and how far the two distributions lie apart."""
    reward = load_reward(ctx.inputs["round"] / "reward", ctx.device)
    scorer = reward_scorer(reward, tokenizer, 8192, ctx.progress)
    drawn: list[Sequence[float]] = []
    for model in (wide, narrow):
        items = scores(model, tokenizer, tasks, settings, progress=ctx.progress).items
        replies = [parse_text(item.reply) for item in items]
        drawn.append(scorer([_conversation(task, reply) for task, reply in zip(tasks, replies, strict=True)]))
    shift = distribution_shift(*drawn)
    return {"rewards_bf16": list(drawn[0]), "rewards_fp8": list(drawn[1]), "shift": asdict(shift)}


def _conversation(task: Task, reply: Message) -> tuple[Message, ...]:
    return (*task.messages, reply)


@torch.no_grad()
def _agreement(wide: Llama, narrow: Llama, tokenizer: Tokenizer, tasks: Sequence[Task]) -> tuple[int, int]:
    """How many answer tokens both models put first, given the same text before them; and of how many."""
    encoded = [encode_dialogue(tokenizer, task.dialogue()) for task in tasks]
    length = max(len(one.ids) for one in encoded)
    rows = [packed_row([encoded[i] for i in group], length) for group in pack([len(e.ids) for e in encoded], length)]
    alike = seen = 0
    for start in range(0, len(rows), 16):
        batch = collate(rows[start : start + 16]).to(device_of(wide))
        choices = [
            model.logits(
                model(batch.tokens_BT, positions_BT=batch.positions_BT, document_ids_BT=batch.document_ids_BT)
            ).argmax(-1)[batch.weights_BT > 0]
            for model in (wide, narrow)
        ]
        alike += int((choices[0] == choices[1]).sum())
        seen += choices[0].numel()
    return alike, seen
