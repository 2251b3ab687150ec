"""Stage `*-base`, `ladder-*`: pre-training of one model, or one more phase of it.

Artifacts: a model folder with the loss history (history.jsonl) and the held-out loss in herd.json; how much was read
(position.json, where the next phase goes on); the verdicts at the gates of a long-context stage (gates.json).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from herd.corpus.shards import Shards
from herd.errors import InputError
from herd.files import read_json, write_json
from herd.generate.engine import Engine
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.road.gates import GateLog, Verdict, haystack, needles
from herd.road.outputs import keep_history, model_output
from herd.road.reading import reading
from herd.road.settings import Pretrain
from herd.stages import Context
from herd.text import Tokenizer
from herd.train.ahead import ReadAhead
from herd.train.batch import Batch
from herd.train.history import TrainResult
from herd.train.loop import mean_loss, train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.phases import ContextGates
from herd.train.sharded_ranks import Ranks
from herd.train.sources import Batches, TokenStream, validation_batches
from herd.weights.hf import load_model, save_model

STATE = "checkpoints"  # beside the model of a phase that another one follows
SHORT = "short_context.json"  # beside models whose recipe has gates
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
    result, steps, gated = _trained(ctx, model, tokenizer)
    made = {"tokens": result.tokens, **result.metrics, **gated, "parameters": config.parameters()}
    if not ctx.is_first:
        return made
    save_folder(ctx, model, tokenizer, made)
    flops = result.tokens * config.flops_per_token(settings.train.seq_len)
    rate = result.tokens / result.seconds if result.seconds else 0.0
    more = {"prolonged_steps": steps - settings.train.steps} if steps > settings.train.steps else {}
    return {**made, **more, "flops": flops, "train_seconds": round(result.seconds, 2), "tokens_per_second": round(rate)}


def _trained(ctx: Context, model: Llama, tokenizer: Tokenizer) -> tuple[TrainResult, int, Mapping[str, float]]:
    """The phase, prolonged while a gate is shut: its result, its steps, what was seen at the gates."""
    settings: Pretrain = ctx.settings
    phase, gates = settings.train, _gates(settings)
    lengths = [phase.steps + gates.more_steps * n for n in range(gates.times + 1)] if gates else [phase.steps]
    read = reading(ctx, tokenizer, [steps * phase.rows_per_step for steps in lengths])
    source = ReadAhead(Batches(read.rows, phase))
    objective, held_out = LanguageModelling(), validation(ctx.inputs["shards"], phase.seq_len)
    log = GateLog(ctx.scratch / "gates.json")
    ctx.progress.note(told(settings))
    for steps in lengths[log.prolongations :]:
        result = train(
            model,
            objective,
            source,
            replace(phase, steps=steps),
            ctx.scratch / "training",
            ctx.progress,
            validate=lambda one: {"validation_loss": mean_loss(one, objective, held_out)},
            tokenizer=tokenizer,
            mesh=ctx.mesh,
            begin=ctx.inputs["before"] / STATE if "before" in ctx.inputs else None,
        )
        if not gates or log.passed:
            break
        if _decide(ctx, log, model, tokenizer, steps):
            break
    read.position(steps * phase.rows_per_step).save(ctx.out)
    if log.verdicts:
        write_json(ctx.out / "gates.json", log.plain())
    _keep_short_loss(ctx, model)
    _keep_state(ctx)
    return result, steps, log.verdicts[-1].metrics() if log.verdicts else {}


def _decide(ctx: Context, log: GateLog, model: Llama, tokenizer: Tokenizer, steps: int) -> bool:
    """A new verdict in the log, and whether the stage is done: of many processes the first one decides, and tells all.

    Raises TrainingError, on all of them, where the stage may not be prolonged any more.
    """

    def decided() -> list[Verdict]:
        gates, phase = ctx.settings.gates, ctx.settings.train
        log.decide(gates, phase.seq_len, _seen(ctx, model, tokenizer, steps), ctx.progress)
        return log.verdicts

    log.verdicts = decided() if ctx.mesh is None else Ranks.here(patient=True).first(decided)
    return log.passed


def _keep_state(ctx: Context) -> None:
    """The last checkpoint, float32 weights and moments, for the phase that goes on; not of averaged weights."""
    made = (ctx.scratch / "training" / "checkpoints").glob("step-*")
    if ctx.settings.phase < ctx.settings.phases and not ctx.settings.train.anneal_steps:
        for newest in sorted(made, key=lambda path: int(path.name.rpartition("-")[2]))[-1:]:
            shutil.copytree(newest, ctx.out / STATE / newest.name, copy_function=os.link)


def _gates(settings: Pretrain) -> ContextGates | None:
    """The gates, if the phase is a long-context stage."""
    phase, gates = settings.train, settings.gates
    return gates if gates and gates.holds_for(phase.seq_len, phase.anneal_steps) else None


def _keep_short_loss(ctx: Context, model: Llama) -> None:
    """What a long-context stage after this phase has to recover to: the loss before the first of them."""
    gates: ContextGates | None = ctx.settings.gates if ctx.is_first else None
    if gates and ctx.settings.train.seq_len <= gates.short_context:
        write_json(ctx.out / SHORT, {"loss": _short_loss(ctx, model, gates)})
    elif gates:
        shutil.copy(ctx.inputs["before"] / SHORT, ctx.out / SHORT)


def told(settings: Pretrain) -> str:
    """A phase in a line."""
    phase = settings.train
    rate = "to 0" if phase.anneal_steps == phase.steps else phase.schedule
    text = (
        f"phase {settings.phase} of {settings.phases}: {phase.steps:,} steps of {phase.batch_tokens:,} tokens"
        f" in rows of {phase.seq_len:,}, rate {phase.peak_lr:g} {rate}"
    )
    return text + (f", streamed from {len(settings.streams)} sources" if settings.streams else "")


def _seen(ctx: Context, model: Llama, tokenizer: Tokenizer, steps: int) -> Verdict:
    """Both measures of the gates."""
    gates, length = ctx.settings.gates, ctx.settings.train.seq_len
    before = read_json(ctx.inputs["before"] / SHORT)["loss"]
    hay = haystack(ctx.inputs["shards"] / "validation", length)
    engine = Engine(model, batch_size=gates.depths, cache_tokens=2 * length, tokenizer=tokenizer)
    found = needles(engine, tokenizer, hay, length, gates.depths, ctx.settings.seed)
    return Verdict.of(gates, steps, _short_loss(ctx, model, gates), before, found)


def _short_loss(ctx: Context, model: Llama, gates: ContextGates) -> float:
    return mean_loss(model, LanguageModelling(), validation(ctx.inputs["shards"], gates.short_context))


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
    keep_history(ctx)
