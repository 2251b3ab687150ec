"""Plans: the order of ranks, what they say and read, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.errors import SettingError
from herd.llama.config import llama31_8b, llama31_405b
from herd.train.parallel.plan import ParallelPlan, Place, parse_plan
from herd.train.settings import TrainSettings

DEGREES = st.integers(1, 4)
PLANS = st.builds(ParallelPlan, pp=DEGREES, dp=DEGREES, cp=DEGREES, tp=DEGREES)


@given(PLANS)
def test_every_rank_has_one_place(plan: ParallelPlan) -> None:
    places = [plan.place(rank) for rank in range(plan.world_size)]
    assert len(set(places)) == plan.world_size
    assert [plan.rank(place) for place in places] == list(range(plan.world_size))


def test_the_order_is_the_papers() -> None:
    """Figure 5, 2 x 2 x 2 x 2: ranks 0 and 1 share TP, 0 and 2 CP, 0 and 4 PP, 0 and 8 DP."""
    plan = ParallelPlan(2, 2, 2, 2)
    assert plan.place(1) == Place(pp=0, dp=0, cp=0, tp=1)
    assert plan.place(2) == Place(pp=0, dp=0, cp=1, tp=0)
    assert plan.place(4) == Place(pp=1, dp=0, cp=0, tp=0)
    assert plan.place(8) == Place(pp=0, dp=1, cp=0, tp=0)


@pytest.mark.parametrize(
    "text", ["dp=2,tp=2", "pp=2,virtual=2,layers=0-2-2-0", "dp=4,shard=reshard,compile=true", "dp=1"]
)
def test_a_plan_reads_what_it_writes(text: str) -> None:
    plan = parse_plan(text)
    assert parse_plan(str(plan)) == plan
    assert str(parse_plan(text)) == ",".join(sorted(text.split(","), key=lambda word: _field(word)))


def _field(word: str) -> int:
    return list(ParallelPlan.__dataclass_fields__).index(word.partition("=")[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dp", "cannot read 'dp'"),
        ("dp=", "cannot read"),
        ("dp=0", "dp is 0"),
        ("dp=x", "whole number"),
        ("ep=2", "ep"),
        ("shard=all", "shard"),
        ("virtual=2", "without pipeline"),
        ("pp=2,consecutive=-1", "consecutive is -1"),
    ],
)
def test_unreadable_plans_are_refused(text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        parse_plan(text)


def test_a_plan_that_does_not_fit_says_which_degree_and_what_would() -> None:
    small = TrainSettings(steps=1, batch_tokens=64, seq_len=16)
    with pytest.raises(SettingError, match="tp=16 does not divide 8 key/value heads") as refused:
        ParallelPlan(tp=16).check(llama31_8b())
    assert refused.value.mend == "tp can be 1, 2, 4, 8"
    with pytest.raises(SettingError, match="dp=8 ranks have 4 rows"):
        ParallelPlan(dp=8).check(llama31_8b(), small)
    with pytest.raises(SettingError, match="cp=16 and tp=1"):
        ParallelPlan(cp=16).check(llama31_8b(), small)
    with pytest.raises(SettingError, match="cannot fill 64 stages"):
        ParallelPlan(pp=16, virtual=4).check(llama31_8b())
    with pytest.raises(SettingError, match="stages share 32"):
        ParallelPlan(pp=2, layers=(16, 15)).check(llama31_8b())
    with pytest.raises(SettingError, match="for 4 processes, and there are 2") as refused:
        ParallelPlan(dp=2, tp=2).check_world(2)
    assert "torchrun --nproc-per-node 4 -m herd" in refused.value.mend


def test_the_published_layouts_fit_405b() -> None:
    for plan in (
        ParallelPlan(16, 64, 1, 8, virtual=8),
        ParallelPlan(16, 128, 1, 8, virtual=8),
        ParallelPlan(16, 8, 16, 8, virtual=8),
    ):
        plan.check(llama31_405b())
        assert plan.world_size in (8192, 16384)
        assert plan.stage_layers(126) == (0, *[1] * 126, 0)
