"""One step: its parts add up, more network never makes it slower, and a pipeline is the trainer's own schedule."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_jobs import job

from herd.llama.config import llama31_70b, llama31_405b
from herd.scaling.plan import job as jobs
from herd.scaling.plan.job import Job, Software, Way
from herd.scaling.plan.layer import Costs
from herd.scaling.plan.network import Fabric, Group
from herd.scaling.plan.products import product_seconds
from herd.scaling.plan.step import Stepping, simulate
from herd.train.parallel.plan import ParallelPlan

PLANS = st.builds(
    ParallelPlan,
    pp=st.sampled_from([1, 2, 4]),
    dp=st.sampled_from([1, 2, 4]),
    cp=st.sampled_from([1, 2]),
    tp=st.sampled_from([1, 2, 8]),
    shard=st.sampled_from(["keep", "reshard", "none"]),
    recompute=st.sampled_from(["nothing", "elementwise", "mlp", "layer"]),
    compile=st.booleans(),
    precision=st.sampled_from(["dtype", "fp8"]),
)


def done(plan: ParallelPlan, rows: int = 64) -> tuple[Job, Way]:
    return job(llama31_70b(), plan.world_size, rows), Way(plan)


@settings(max_examples=60, deadline=None)
@given(plan=PLANS)
def test_parts_add_up_to_the_step(plan: ParallelPlan) -> None:
    step = simulate(*done(plan))
    assert sum(step.parts.values()) == pytest.approx(step.seconds)
    assert min(step.parts.values()) >= 0
    assert 0 < step.mfu < 1


@settings(max_examples=40, deadline=None)
@given(plan=PLANS)
def test_a_faster_network_never_makes_a_step_longer(plan: ParallelPlan) -> None:
    slow, way = done(plan)
    fast = replace(slow, network=replace(slow.network, card_rate=1e12, latency=0.0, pod_latency=0.0))
    assert simulate(fast, way).seconds <= simulate(slow, way).seconds * (1 + 1e-9)


def test_rows_of_a_pipeline_follow_its_schedule() -> None:
    a_job, way = done(ParallelPlan(pp=4, dp=2, virtual=4))
    step, schedule = simulate(a_job, way), way.schedule(a_job)
    for rank in range(4):
        mine = sorted((one for one in step.timeline if one.rank == rank), key=lambda one: one.start)
        assert [one.action for one in mine] == schedule.actions(rank)
        assert all(before.end <= after.start + 1e-12 for before, after in pairwise(mine))


def test_the_bubble_is_that_of_equal_stages() -> None:
    """(PP-1)/(V*M) of the time at work (paper, section 3.3.2), but for the ends, which are shorter than a layer: the
    first rank has 7 layers and an embedding where others have 8, the last 7 and the output."""
    plan = ParallelPlan(pp=16, virtual=8, tp=8)
    for rows in (16, 64):
        found = simulate(job(llama31_405b(), 128, rows), Way(plan)).bubble
        assert found == pytest.approx(15 / (8 * rows), abs=0.015)


@pytest.mark.parametrize(("pp", "virtual", "rows"), [(4, 4, 64), (4, 1, 63), (8, 2, 133), (1, 1, 40)])
def test_many_micro_batches_are_played_in_part(
    pp: int, virtual: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ParallelPlan(pp=pp, dp=2, tp=8, virtual=virtual)
    a_job, way = done(plan, 2 * rows)
    some = simulate(a_job, way).seconds
    monkeypatch.setattr(jobs, "_RUNS", 10**6)
    assert len(simulate(a_job, way).timeline) >= rows * 2 * pp * virtual
    assert some == pytest.approx(simulate(a_job, way).seconds, rel=2e-3)


def test_recomputing_costs_what_is_computed_again() -> None:
    a_job, way = done(ParallelPlan(dp=8))
    plain = Stepping(a_job, way).costs
    again = Stepping(a_job, Way(ParallelPlan(dp=8, recompute="layer"))).costs
    extra = again.backward().matmul + again.again().matmul - plain.backward().matmul
    down = product_seconds(a_job.gpu, plain.n, *plain.products[3])
    assert extra == pytest.approx(plain.forward().matmul - down)


def test_a_ring_takes_its_slowest_link() -> None:
    fabric = Fabric(job().gpu, job().network)
    within, across = Group(8, 1, 1), Group(16, 1, 1)
    assert fabric.rate(within) == pytest.approx(0.8 * 450e9)
    assert fabric.rate(across) == pytest.approx(0.8 * 450e9) or fabric.rate(across) == pytest.approx(0.8 * 400e9)
    assert fabric.rate(Group(16, 8, 8)) == pytest.approx(0.8 * 50e9)
    # 3,072 GPUs of a pod share uplinks of a seventh: 2,048 rings through them get less than a card, 128 do not.
    assert fabric.rate(Group(8, 2048, 2048)) == pytest.approx(3072 * 0.8 * 50e9 / 7 / 2048)
    assert fabric.rate(Group(128, 128, 128)) == pytest.approx(0.8 * 50e9)
    assert fabric.ring(1e9, Group(1, 1, 1)) == 0.0


def test_a_power_limit_slows_products_and_not_memory() -> None:
    a_job = job()
    capped = a_job.gpu.capped(500)
    assert capped.clock == pytest.approx((400 / 600) ** (1 / 3))
    assert product_seconds(capped, 8192, 8192, 8192) > product_seconds(a_job.gpu, 8192, 8192, 8192)
    assert capped.memory_rate == a_job.gpu.memory_rate


def test_a_ring_of_context_ranks_sends_all_query_heads_and_gathering_sends_the_key_heads() -> None:
    plan = ParallelPlan(cp=4, tp=8)
    one = job(llama31_405b(), plan.world_size, rows=4, seq=131_072)
    free = replace(one, network=replace(one.network, latency=0.0), gpu=replace(one.gpu, memory_rate=1e30))
    around = Costs(replace(free, software=Software(ring=True)), Way(plan))
    once = Costs(free, Way(plan))
    query_heads, key_heads = 128, 8
    assert around.forward().cp / once.forward().cp == pytest.approx(query_heads / key_heads)
    # Backward both gather 3 parts of keys and values in BF16; a ring passes 4 on in fp32, herd reduces 3 in fp32.
    apart = (3 * 2 + 4 * 4) / (3 * 2 + 3 * 4)
    assert around.backward().cp / once.backward().cp == pytest.approx(query_heads / key_heads * apart)
    kept = Costs(free, Way(replace(plan, recompute="nothing")))  # nothing is gathered again
    assert kept.backward().cp < once.backward().cp
    alone = Costs(replace(job(), software=Software(ring=True)), Way(ParallelPlan(dp=8)))
    assert alone.forward().cp == alone.backward().cp == 0
