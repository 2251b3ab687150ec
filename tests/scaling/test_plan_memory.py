"""Bytes by formula beside the network itself: built on the meta device, and what autograd keeps of a layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from plan_jobs import SMALL, job

from herd.llama import attention
from herd.llama.block import Block
from herd.llama.config import llama31_8b, llama31_405b
from herd.llama.model import Llama
from herd.llama.remade import OBSERVER
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.layer import Costs
from herd.scaling.plan.memory import kept_numbers, memory, of_rank
from herd.scaling.plan.published import rows
from herd.train.parallel.account import loss_bytes, peak
from herd.train.parallel.estimate import estimate
from herd.train.parallel.plan import ParallelPlan, parse_plan
from herd.train.parallel.schedule import Schedule
from herd.train.recompute import recompute as make_again
from herd.train.settings import TrainSettings


def test_parameters_of_one_process_are_the_models() -> None:
    with torch.device("meta"):
        model = Llama(llama31_8b())
    numbers = sum(parameter.numel() for parameter in model.parameters())
    found = memory(job(gpus=1), Way(ParallelPlan()))
    assert found.optimiser == 8 * numbers
    assert found.gradients == 4 * numbers
    assert found.parameters == 4 * numbers + 2 * numbers  # fp32 masters and the copy that computes


def test_stages_hold_all_parameters_between_them() -> None:
    """Both ends of 405B's pipeline hold 7 layers and a matrix of the vocabulary, and the last the last norm; tensor
    ranks cut all but the norms."""
    config = llama31_405b()
    with torch.device("meta"):
        block = Block(config, 0)
    whole = {name: parameter.numel() for name, parameter in block.named_parameters()}
    norms = sum(count for name, count in whole.items() if "norm" in name)
    row = rows()[0]
    layer = (sum(whole.values()) - norms) / 8 + norms
    numbers = 7 * layer + config.embedding_parameters() / 8 + config.dim  # 8 stages, one of them without a layer
    found = of_rank(row.job, row.way, 15)
    assert found.optimiser == pytest.approx(8 * numbers / 64)
    assert found.gradients == pytest.approx(4 * numbers)  # sums, which make place for shards


@pytest.mark.parametrize(
    ("number", "recompute"),
    [(0, "elementwise"), (1, "elementwise"), (2, "elementwise"), (2, "nothing"), (1, "mlp"), (0, "layer")],
)
@pytest.mark.slow
def test_405b_on_the_published_layouts_is_what_the_trainer_counts(number: int, recompute: str) -> None:
    row = rows()[number]
    plan = replace(row.way.plan, recompute=recompute, compile=False)  # type: ignore[arg-type]
    length = row.job.seq_len
    counted = estimate(row.job.config, plan, TrainSettings(1, row.job.batch_tokens, length, length, dtype="bfloat16"))
    for rank in range(plan.pp):
        found = of_rank(row.job, Way(plan), rank)
        for part in ("parameters", "gradients", "optimiser", "activations"):
            assert getattr(found, part) == pytest.approx(getattr(counted[rank], part), rel=0.01), (rank, part)


@pytest.mark.parametrize(
    "text",
    ["dp=1", "tp=2", "pp=2,tp=2", "dp=2,shard=reshard", "tp=2,recompute=layer", "pp=2,virtual=2,recompute=nothing"],
)
def test_the_trainer_counts_the_same(text: str) -> None:
    """Its estimate lays the network itself out without memory (train/parallel/estimate.py)."""
    plan, length = parse_plan(text), 512
    train = TrainSettings(1, 4 * length, length, length, dtype="bfloat16")
    a_job = Job(SMALL, plan.world_size, job().gpu, job().network, length, 4 * length)
    for rank, counted in enumerate(estimate(SMALL, plan, train)):
        found = of_rank(a_job, Way(plan), rank)
        assert found.parameters == counted.parameters
        assert found.gradients == counted.gradients
        assert found.optimiser == counted.optimiser
        # Beside layers: rotation, ids, the input of the last norm. The planner's loss is there at any time.
        small = length * (8 * SMALL.head_dim + 2 * SMALL.dim + 32)
        apart = counted.activations - found.activations
        loss = loss_bytes(SMALL, plan.tp, length, 2)
        assert -loss * (plan.pp > 1) <= apart <= small * Way(plan).schedule(a_job).in_flight(rank)


class _Flash(torch.autograd.Function):
    """Keeps what a kernel keeps that makes no scores: the CPU's attention for short rows is another."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out


@pytest.mark.parametrize("recompute", ["nothing", "elementwise", "mlp", "layer"])
def test_a_layer_keeps_what_the_formula_says(recompute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, length = SMALL, 512
    monkeypatch.setattr(attention, "attend", lambda q, k, v, layout: _Flash.apply(q, k, v))  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    model = Llama(config).to(torch.bfloat16)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    make_again(model, recompute)  # type: ignore[arg-type]
    block = model.model.layers[0]
    x_BTD = torch.randn(1, length, config.dim, dtype=torch.bfloat16, requires_grad=True)
    layout = model._layout(x_BTD, None, None, None)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    own |= {part.untyped_storage().data_ptr() for part in (layout.cos, layout.sin)}
    kept: dict[int, int] = {}

    def seen(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    before = OBSERVER.set(seen)
    with torch.autograd.graph.saved_tensors_hooks(seen, lambda value: value):
        out_BTD = block(x_BTD + 0, layout)
    OBSERVER.reset(before)
    del out_BTD
    way = Way(ParallelPlan(recompute=recompute))  # type: ignore[arg-type]
    costs = Costs(Job(config, 1, job().gpu, job().network, length, length), way)
    wanted = 2 * kept_numbers(costs) * length
    assert wanted <= sum(kept.values()) <= wanted + 2 * 4 * length  # each norm's fp32 number a token beside it


@pytest.mark.parametrize(("pp", "virtual", "layers"), [(16, 8, ()), (8, 16, ()), (4, 1, ()), (2, 2, (20, 10, 60, 36))])
def test_no_rank_holds_more_than_what_is_told(pp: int, virtual: int, layers: tuple[int, ...]) -> None:
    """The first stage of 405B's pipeline has no layer: its second rank keeps more activations than its first."""
    plan = ParallelPlan(pp=pp, tp=8, dp=4, virtual=virtual, layers=layers)
    a_job, way = job(llama31_405b(), pp * 32, 64), Way(plan)
    assert memory(a_job, way).total == max(of_rank(a_job, way, rank).total for rank in range(pp))


def test_context_ranks_keep_whole_rows_of_keys_for_all_heads_where_nothing_is_made_again() -> None:
    alone, shared = ParallelPlan(cp=1, tp=8), ParallelPlan(cp=4, tp=8)
    base = replace(job(gpus=8), seq_len=8192)
    one, four = (Costs(base, Way(plan)) for plan in (alone, shared))
    config = base.config
    assert kept_numbers(four) == kept_numbers(one)  # they are gathered again
    width = config.dim / 8
    one, four = (Costs(base, Way(replace(plan, recompute="nothing"))) for plan in (alone, shared))
    assert kept_numbers(four) - kept_numbers(one) == pytest.approx(9 * width - 2 * config.kv_dim / 8)


def test_the_most_layers_alive_are_those_of_the_schedule() -> None:
    schedule = Schedule(4, 8)
    assert [peak(schedule, (2, 2, 2, 2), rank) for rank in range(4)] == [8, 6, 4, 2]
    assert peak(Schedule(2, 6, 2), (0, 1, 1, 0), 0) == schedule_peak(Schedule(2, 6, 2), (0, 1, 1, 0), 0)


def schedule_peak(schedule: Schedule, layers: tuple[int, ...], rank: int) -> int:
    """By the definition: of each action's moment, what was forwarded and not yet gone backward."""
    order = schedule.actions(rank)
    return max(
        sum(layers[one.stage] * (1 if one.kind == "forward" else -1) for one in order[: moment + 1])
        for moment in range(len(order))
    )


@pytest.mark.parametrize("shard", ["keep", "reshard", "none"])
def test_sharding_takes_less(shard: str) -> None:
    one = memory(job(gpus=8), Way(ParallelPlan(dp=8, shard="none")))
    found = memory(job(gpus=8), Way(ParallelPlan(dp=8, shard=shard)))  # type: ignore[arg-type]
    assert found.optimiser == (one.optimiser if shard == "none" else one.optimiser / 8)
    assert found.total <= one.total
