"""Stage `round-N`: one round of the flagship's post-training, from the policy before it to the one that goes on.

Artifacts: the model folder; round.json (all counts); accepted.jsonl and preferences.jsonl; reward/ (the reward
model, as transformers' LlamaForSequenceClassification).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from herd.files import write_json
from herd.posttrain.records import read_accepted, read_preferences, write_accepted, write_preferences
from herd.posttrain.round import RoundInputs, run_round
from herd.road.means import dialogues, evaluator, means
from herd.road.pretrain import save_folder
from herd.road.settings import RoundOf
from herd.road.world import read_tasks
from herd.stages import Context
from herd.text import Tokenizer
from herd.train.objectives.reward import RewardModel
from herd.train.reward_files import load_reward, save_reward
from herd.weights.hf import load_model


def run(ctx: Context) -> Mapping[str, Any]:
    settings: RoundOf = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    world = ctx.inputs["world"]
    earlier = [ctx.inputs[name] for name in sorted(ctx.inputs) if name.startswith("round-")]
    inputs = RoundInputs(
        policy=load_model(ctx.inputs["policy"], device=ctx.device),
        tasks=read_tasks(world, "prompts"),
        seed_dialogues=dialogues(read_tasks(world, "seed")),
        means=means(tokenizer, settings.suite),
        evaluate=evaluator(tokenizer, read_tasks(world, "dev"), settings.suite),
        base=load_model(ctx.inputs["base"], device=ctx.device),
        reward=newest_reward(earlier, ctx.device),
        earlier_accepted=[one for folder in earlier for one in read_accepted(folder / "accepted.jsonl")],
        earlier_preferences=[one for folder in earlier for one in read_preferences(folder / "preferences.jsonl")],
    )
    result = run_round(settings.number, inputs, settings.round, ctx.scratch / "round", ctx.progress)
    save_folder(ctx, result.model, tokenizer, {"round": settings.number, "passed": result.passed}, instruct=True)
    shutil.copy(ctx.scratch / "round" / "round.json", ctx.out / "round.json")
    write_accepted(ctx.out / "accepted.jsonl", result.accepted)
    write_preferences(ctx.out / "preferences.jsonl", result.preferences)
    if result.reward is not None:
        save_reward(
            ctx.out / "reward",
            result.reward,
            pad=tokenizer.pad,
            tokenizer=tokenizer,
            dtype=torch.float32,  # the next round judges with the very weights that this one trained
            herd={"round": settings.number},
        )
    write_json(ctx.out / "scores.json", result.scores.plain())
    return {
        "passed": result.passed,
        "accepted": len(result.accepted),
        "pairs": len(result.preferences),
        "dev_average": result.scores.average,
    }


def newest_reward(rounds: list[Path], device: str = "cpu") -> RewardModel | None:
    """The reward model of the last round that trained one."""
    for folder in reversed(rounds):
        if (folder / "reward").is_dir():
            return load_reward(folder / "reward", device)
    return None
