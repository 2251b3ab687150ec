"""Stage `*-base`, `ladder-*`: pre-training of one model, or one more phase of it.

Artifacts: a model folder with the loss history (history.jsonl) and the held-out loss in herd.json.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from herd.corpus.shards import Shards
from herd.errors import InputError
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.road.outputs import model_output
from herd.road.settings import Pretrain
from herd.stages import Context
from herd.text import Tokenizer
from herd.train.batch import Batch
from herd.train.loop import mean_loss, train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.sources import Batches, Shuffled, TokenStream, validation_batches
from herd.weights.hf import load_model, save_model

VALIDATION_ROWS = 256  # at most; of the phase's own sequence length


def run(ctx: Context) -> Mapping[str, Any]:
    settings: Pretrain = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    config = settings.shape.config(settings.vocab_size)
    if "before" in ctx.inputs:
        model = load_model(ctx.inputs["before"], device=ctx.device)
    else:
        model = Llama(config)
        init_weights(model, settings.seed, settings.init_std)
        model.to(ctx.device)
    phase, objective = settings.train, LanguageModelling()
    store = Shards.open(ctx.inputs["shards"] / "train")
    held_out = validation(ctx.inputs["shards"], phase.seq_len)
    source = Batches(Shuffled(TokenStream(store, phase.seq_len, phase.seed), phase.seed), phase)
    result = train(
        model,
        objective,
        source,
        phase,
        ctx.scratch / "training",
        ctx.progress,
        validate=lambda one: {"validation_loss": mean_loss(one, objective, held_out)},
        tokenizer=tokenizer,
    )
    made = {"tokens": result.tokens, **result.metrics, "parameters": config.parameters()}
    save_folder(ctx, model, tokenizer, made)
    flops = result.tokens * config.flops_per_token(phase.seq_len)
    rate = result.tokens / result.seconds if result.seconds else 0.0
    return {**made, "flops": flops, "train_seconds": round(result.seconds, 2), "tokens_per_second": round(rate)}


def validation(shards: Path, seq_len: int) -> list[Batch]:
    """Held-out rows, the same for every model of a run."""
    store = Shards.open(shards / "validation")
    if not store.n_tokens:
        raise InputError(
            "no document was held out to validate on: the corpus is too small for its share",
            where=str(shards / "validation"),
            mend="hand in more documents, or raise mix.validation",
        )
    rows = max(1, min(VALIDATION_ROWS, store.n_tokens // seq_len))
    return validation_batches(TokenStream(store, seq_len, 0), rows, 16)


def save_folder(
    ctx: Context, model: Llama, tokenizer: Tokenizer, made: Mapping[str, Any], *, instruct: bool = False
) -> None:
    """Write the model where the stage's output goes, with the history of its training beside it.

    `instruct` for a model that talks: other programs then stop it at the end of its turn.
    """
    with model_output(ctx.out) as folder:
        save_model(folder, model, model.config, tokenizer=tokenizer, herd=dict(made), instruct=instruct)
    history = ctx.scratch / "training" / "history.jsonl"
    if history.exists():
        shutil.copy(history, ctx.out / "history.jsonl")
