"""A measured machine: what its software costs is found out of steps, rates lie between those that were measured, and a
step on it is made of its parts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_jobs import SMALL

from herd.commands.plan_tiny import RUNS, overhead, plans
from herd.scaling.plan.hardware import Gpu
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.measured import Attention, Measured, Overhead, Point, rate_at
from herd.scaling.plan.network import Network
from herd.scaling.plan.step import simulate
from herd.train.parallel.plan import parse_plan

PRODUCTS = (Point(100, 50e9), Point(400, 150e9), Point(1000, 160e9))
KERNEL = Attention((Point(128, 60e9), Point(2048, 100e9)), (Point(128, 50e9), Point(2048, 120e9)))
COSTS = {
    "plain": Overhead(1e-3, 2e-3, 1e-3),
    "reshard": Overhead(3e-3, 4e-3, 6e-3),
    "tp": Overhead(1e-3, 8e-3, 11e-3),
    "cp": Overhead(0.0, 1e-3, 4e-3),
}
MACHINE = Measured(PRODUCTS, PRODUCTS, KERNEL, KERNEL, 40e9, 4e8, 4e8, 8e8, 0.3e9, COSTS)
GPU = Gpu("cpu", 2**34, 160e9, 0, 25e9, 0.6e9, 2, 0, 1, 1, 2, {"cpu": (1e11, 1e11)}, 0.01, measured=MACHINE)
NETWORK = Network("measured", 0.6e9, 0, 1.0, 2e-3, 2e-3, 2e-3, measured=True)
SECONDS = st.floats(0, 0.1)


def step_of(text: str, gpu: Gpu = GPU, length: int = 512, rows: int = 8):  # type: ignore[no-untyped-def]
    plan = parse_plan(text)
    return simulate(Job(SMALL, plan.world_size, gpu, NETWORK, length, rows * length), Way(plan))


@given(pp=st.sampled_from([1, 2, 4]), step=SECONDS, microbatch=SECONDS, layer=SECONDS)
def test_what_software_costs_is_found_out_of_three_runs(pp: int, step: float, microbatch: float, layer: float) -> None:
    """A pipeline of equal stages works through pp - 1 micro-batches more than there are."""
    left = [step + (batches + pp - 1) * (microbatch + layer * layers / pp) for layers, batches in RUNS]
    found = overhead(left, pp)
    assert (found.step, found.microbatch, found.layer) == pytest.approx((step, microbatch, layer), abs=1e-9)


@given(size=st.floats(1, 1e5))
def test_rates_lie_between_those_that_were_measured(size: float) -> None:
    around = [point.rate for point in PRODUCTS]
    assert min(around) <= rate_at(PRODUCTS, size) <= max(around)
    assert rate_at(PRODUCTS, 400) == 150e9
    assert rate_at(PRODUCTS, 200) == pytest.approx(100e9)  # half way, by the logarithm


@pytest.mark.parametrize(
    "text", ["dp=1", "dp=2,shard=none", "dp=2,shard=keep", "dp=2,shard=reshard", "tp=2", "cp=2", "pp=2"]
)
def test_parts_of_a_step_add_up(text: str) -> None:
    step = step_of(text)
    assert sum(step.parts.values()) == pytest.approx(step.seconds)
    assert min(step.parts.values()) >= 0


def test_what_an_axis_costs_is_added_to_a_plain_process() -> None:
    assert MACHINE.overhead_of(parse_plan("dp=2,shard=none")) == COSTS["plain"]
    assert MACHINE.overhead_of(parse_plan("tp=2")) == Overhead(1e-3, 8e-3, 11e-3)
    both = MACHINE.overhead_of(parse_plan("tp=2,cp=2,shard=none"))
    assert both.layer == pytest.approx(1e-3 + 10e-3 + 3e-3)
    assert both.microbatch == pytest.approx(2e-3 + 6e-3)  # contexts add nothing where less was measured


def test_software_costs_once_a_layer_and_micro_batch() -> None:
    idle = replace(GPU, measured=replace(MACHINE, overhead={}))
    busy, free = step_of("dp=1"), step_of("dp=1", idle)
    costs = COSTS["plain"]
    expected = costs.step + 8 * (costs.microbatch + SMALL.n_layers * costs.layer)
    assert busy.seconds - free.seconds == pytest.approx(expected)


def test_a_reduction_takes_longer_than_a_gather_where_it_was_measured_so() -> None:
    even = replace(GPU, measured=replace(MACHINE, reduce_rate=GPU.link_rate))
    assert step_of("tp=2").parts["tp"] > step_of("tp=2", even).parts["tp"]
    assert step_of("dp=2,shard=reshard").seconds > step_of("dp=2,shard=reshard", even).seconds


def test_every_kind_of_plan_is_tried_on_all_processes() -> None:
    assert {plan.world_size for plan in plans(4).values()} == {4}
    assert set(plans(2)) == {"plain", "keep", "reshard", "tp", "cp", "pp"}
    assert plans(1)["plain"].world_size == 1
