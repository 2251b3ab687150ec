"""Stage `adopt-*`: fine-tuning of an adopted model. Artifacts: `adapter/` (peft's layout), `model/`, history.jsonl.

Everything runs through the one loop of `train/`; here objective, rows and held-out measure are put together. Dropout
draws from torch's default generator, seeded here; checkpoints carry its state, so a killed run ends in the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from herd.devices import describe, device_of, memory_errors
from herd.files import atomic_file, read_json, write_json
from herd.llama.model import Llama
from herd.posttrain.training import training_report
from herd.road.adopt.compact import Compact
from herd.road.adopt.data import dialogues_of, few_steps, pairs_of, within_epochs
from herd.road.adopt.graph import Training
from herd.road.adopt.model import check_fit, counts, ready
from herd.road.adopt.save import save
from herd.road.adopt.spread import Spread, spread_of
from herd.road.adopt.teach import taught
from herd.road.outputs import keep_history
from herd.stages import Context
from herd.text import Tokenizer
from herd.train.batch import Batch, BatchSource
from herd.train.loop import less_memory, train
from herd.train.objectives.distillation import Distillation
from herd.train.objectives.dpo import DirectPreference, reference_logprobs
from herd.train.objectives.language_modelling import SupervisedFinetuning
from herd.train.objectives.reward import RewardModel, RewardObjective
from herd.train.objectives.terms import Objective
from herd.train.pairs import PairBatches, Preference, group_by_width, pair_batch
from herd.train.precision import compute_dtype
from herd.train.settings import TrainSettings
from herd.train.sources import Batches, PackedRows, RowSource, validation_batches
from herd.train.worker import measured
from herd.weights.hf import load_config


@dataclass(frozen=True)
class Plan:
    """What the loop gets, and what is measured on the held-out part."""

    model: nn.Module
    objective: Objective
    source: BatchSource
    settings: TrainSettings
    held: Sequence[Batch]
    items: int
    held_items: int
    notes: Sequence[str]  # on the data


def run(ctx: Context) -> Mapping[str, Any]:
    with memory_errors(less_memory(ctx.settings.adoption.train)):
        return _run(ctx)


def _run(ctx: Context) -> Mapping[str, Any]:
    settings: Training = ctx.settings
    tokenizer = Tokenizer.load(Path(settings.model))
    check_fit(settings.adoption, load_config(settings.model), tokenizer, Path(settings.model))
    device, folder = torch.device(ctx.device), Path(settings.model)
    spread = spread_of(settings.adoption, folder, ctx.mesh)
    llama = spread.skeleton() if spread else ready(settings.adoption, folder, device)
    size = counts(llama)
    ctx.progress.note(
        f"{size['learning']:,} parameters learn, {size['frozen']:,} are frozen in {size['frozen_bytes']:,} bytes"
    )
    if tokenizer.foreign_format:
        ctx.progress.note(tokenizer.foreign_format.told())
    plan = _plan(ctx, settings, llama, tokenizer, spread)
    if spread:
        plan = replace(plan, settings=spread.kept(plan.settings))
    for note in (*plan.notes, few_steps(plan.settings)):
        if note:
            ctx.progress.note(note)
    things = "pairs" if plan.objective.unit == "pairs" else "dialogues"
    ctx.progress.note(f"{plan.items:,} {things}: {plan.settings.steps:,} steps at up to {plan.settings.peak_lr:g}")
    before = _before(ctx, plan, spread)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(plan.settings.seed)
        result = train(
            plan.model,
            plan.objective,
            plan.source,
            plan.settings,
            ctx.scratch / "training",
            ctx.progress,
            validate=lambda model: held_out(model, plan.objective, plan.held),
            tokenizer=tokenizer,
            mesh=ctx.mesh,
            weights=spread.weights(plan.model) if spread else None,
        )
    if not ctx.is_first:
        return {}
    learnt = spread.learnt(ctx.scratch / "training") if spread and settings.adoption.adapter is None else None
    report = training_report(result) | {"items": plan.items, "objective": settings.adoption.objective, **size}
    report |= {"device": describe(device), "before": before, "held_out_items": plan.held_items}
    report |= save(ctx.out, settings, plan.model, tokenizer, report, ctx.progress, learnt)
    keep_history(ctx)
    return report


def held_out(model: Any, objective: Objective, batches: Sequence[Batch]) -> dict[str, float]:
    """Means over held-out batches, `held_out_loss` and the objective's metrics; empty without batches."""
    sums = dict(measured(model, objective, batches)) if batches else {"count": 0.0}
    count = sums.pop("count")
    if not count:
        return {}
    loss = sums.pop("total") / count
    return {"held_out_loss": loss, **{f"held_out_{name}": value / count for name, value in sums.items()}}


def _before(ctx: Context, plan: Plan, spread: Spread | None) -> dict[str, float]:
    """The held-out measures of the model as it came, kept for a run that goes on; the first process's, or all help."""
    path = ctx.scratch / "before.json"
    if spread is not None and not spread.stands(path):
        measure = partial(held_out, objective=plan.objective, batches=plan.held)
        found = spread.before(plan.model, plan.objective, plan.settings, measure)
    elif spread is None and ctx.is_first and not path.exists():
        found = held_out(plan.model, plan.objective, plan.held)
    else:
        return dict(read_json(path)) if ctx.is_first else {}
    if ctx.is_first:
        write_json(path, found)
    return found


def _plan(ctx: Context, settings: Training, llama: Llama, tokenizer: Tokenizer, spread: Spread | None) -> Plan:
    adoption = settings.adoption
    if adoption.objective in ("dpo", "reward"):
        return _preference(ctx, settings, llama, tokenizer, spread)
    answers = ctx.inputs.get("answers")
    path = Path(settings.data)
    if answers is not None:  # in our own layout, whatever the prompts' columns were called
        path, adoption = answers / "dialogues.jsonl", replace(adoption, columns={})
    data = dialogues_of(adoption, path, tokenizer)
    teacher = adoption.teacher if adoption.teacher and adoption.teacher.folder else None

    def packed(dialogues: Sequence[Compact]) -> PackedRows:
        return PackedRows(dialogues, adoption.train.seq_len, adoption.train.seed, tokenizer.pad)

    def seen(rows: PackedRows, name: str) -> RowSource:
        return taught(ctx, settings, rows, name) if teacher else rows

    rows = packed(data.learnt)
    train_settings = within_epochs(adoption, rows.n_rows, adoption.train.rows_per_step)
    source = Batches(seen(rows, "learnt"), train_settings)
    held: list[Batch] = []
    if data.held:
        rows = packed(data.held)
        held = validation_batches(seen(rows, "held"), rows.n_rows, train_settings.rows_per_microbatch)
    objective: Objective = Distillation(mix=teacher.logits.weight) if teacher else SupervisedFinetuning()
    return Plan(llama, objective, source, train_settings, held, len(data.learnt), len(data.held), data.notes)


def _preference(ctx: Context, settings: Training, llama: Llama, tokenizer: Tokenizer, spread: Spread | None) -> Plan:
    adoption = settings.adoption
    data = pairs_of(adoption, Path(settings.data), tokenizer)
    train_settings = within_epochs(adoption, len(data.learnt), max(1, adoption.train.rows_per_step // 2))
    budget = train_settings.microbatch_tokens or train_settings.batch_tokens
    if adoption.objective == "reward":
        model: nn.Module = RewardModel(llama).train()
        objective: Objective = RewardObjective()
        known, held_known = None, None
    else:
        model, objective = llama, DirectPreference(adoption.preference.beta, adoption.preference.nll_weight)
        known = _reference(ctx, llama, data.learnt, budget, "learnt", spread, computing=True)
        held_known = _reference(ctx, llama, data.held, budget, "held", spread, computing=False)
    source = PairBatches(data.learnt, train_settings, known, tokenizer.pad)
    held = _held_pairs(data.held, held_known, budget, tokenizer.pad)
    return Plan(model, objective, source, train_settings, held, len(data.learnt), len(data.held), data.notes)


def _reference(
    ctx: Context,
    llama: Llama,
    pairs: Sequence[Preference],
    budget: int,
    name: str,
    spread: Spread | None,
    *,
    computing: bool,
) -> Tensor:
    """The reference's log-probabilities [pairs, 2], once: the model before training is it, a fresh adapter adds 0.

    `computing`: in the dtype that the loop computes in, or every pair would begin with a margin of rounding errors
    (of bfloat16 against float32 masters); else in the model's own, in which held-out pairs are measured. On many
    processes both are computed and measured in the loop's.
    """
    path = ctx.scratch / f"reference-{name}.npy"
    if spread is not None:
        return spread.reference(llama, pairs, budget, path, ctx)
    if not path.exists():
        adoption = ctx.settings.adoption
        dtype = compute_dtype(adoption.train, device_of(llama))
        narrow = computing and adoption.adapter is None and dtype != torch.float32
        model = copy.deepcopy(llama).to(dtype) if narrow else llama
        found = reference_logprobs(model.eval(), pairs, budget, ctx.progress)
        llama.train()
        with atomic_file(path) as handle:
            np.save(handle, found.numpy())
    return torch.from_numpy(np.load(path))


def _held_pairs(pairs: Sequence[Preference], reference: Tensor | None, budget: int, pad: int) -> list[Batch]:
    order = sorted(range(len(pairs)), key=lambda place: (pairs[place].longest, place))
    groups = group_by_width([pairs[place].longest for place in order], order, budget)
    return [
        pair_batch([pairs[place] for place in group], None if reference is None else reference[group], pad)
        for group in groups
    ]
