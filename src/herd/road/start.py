"""Stage `*-start`: supervised fine-tuning on the seed dialogues, the first policy that can answer in the format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from herd.posttrain.ledger import Ledger
from herd.posttrain.training import sft_dialogues, train_sft, training_report
from herd.road.means import dialogues
from herd.road.pretrain import save_folder
from herd.road.world import read_tasks
from herd.stages import Context
from herd.text import Tokenizer
from herd.train.settings import TrainSettings
from herd.weights.hf import load_model


def run(ctx: Context) -> Mapping[str, Any]:
    settings: TrainSettings = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    ledger = Ledger()
    seed = {"seed": (dialogues(read_tasks(ctx.inputs["world"], "seed")), 1.0)}
    encoded, _ = sft_dialogues(seed, tokenizer, settings.seq_len, settings.seed, ledger)
    ledger.tell(ctx.progress)
    base = load_model(ctx.inputs["base"], device=ctx.device)
    model, result = train_sft(base, encoded, settings, tokenizer, ctx.scratch / "training", ctx.progress)
    made = training_report(result) | {"dialogues": len(encoded)}
    save_folder(ctx, model, tokenizer, made)
    return made
