"""Stage `*-start`: supervised fine-tuning on the seed dialogues, the first policy that can answer in the format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from herd.posttrain.training import train_sft, training_report
from herd.road.means import dialogues
from herd.road.pretrain import save_folder
from herd.road.world import read_tasks
from herd.stages import Context
from herd.text import Tokenizer, encode_dialogue
from herd.train.settings import TrainSettings
from herd.weights.hf import load_model


def run(ctx: Context) -> Mapping[str, Any]:
    settings: TrainSettings = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    seed = dialogues(read_tasks(ctx.inputs["world"], "seed"))
    encoded = [encode_dialogue(tokenizer, messages) for messages in seed]
    base = load_model(ctx.inputs["base"])
    model, result = train_sft(base, encoded, settings, tokenizer, ctx.scratch / "training", ctx.progress)
    made = training_report(result) | {"dialogues": len(encoded)}
    save_folder(ctx, model, tokenizer, made)
    return made
