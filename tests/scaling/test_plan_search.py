"""The search: as fast as any layout that it allows, within memory, and what it refuses it refuses with a way out."""

import pytest
from plan_jobs import job

from herd.errors import SettingError
from herd.llama.config import llama31_8b, llama31_405b
from herd.scaling.plan.job import Way
from herd.scaling.plan.memory import memory
from herd.scaling.plan.search import _ways, best, check
from herd.scaling.plan.step import simulate
from herd.train.parallel.plan import ParallelPlan


def test_nothing_that_fits_is_faster() -> None:
    a_job = job(llama31_8b(), 8, 16)
    found = best(a_job)
    assert found.memory.total <= a_job.gpu.memory_bytes
    ways = _ways(a_job, ParallelPlan(compile=True), frozenset())
    fitting = [way for way in ways if memory(a_job, way).total <= a_job.gpu.memory_bytes]
    assert found.fitting == len(fitting)
    fastest = min(simulate(a_job, way).seconds for way in fitting)
    assert found.step.seconds <= fastest * 1.005  # what is not played is judged roughly


def test_long_rows_of_405b_get_the_papers_layout() -> None:
    """Table 4, third row: TP 8, CP 16, PP 16, DP 8."""
    found = best(job(llama31_405b(), 16_384, 128, 131_072))
    plan = found.way.plan
    assert (plan.tp, plan.cp, plan.pp, plan.dp) == (8, 16, 16, 8)
    assert plan.recompute == "elementwise"


def test_what_is_fixed_stays() -> None:
    given = ParallelPlan(tp=8, virtual=8, pp=16, compile=True)
    found = best(job(llama31_405b(), 2048, 512), given, frozenset(("tp", "pp", "virtual")), rows=2)
    assert (found.way.plan.tp, found.way.plan.pp, found.way.plan.virtual, found.way.rows) == (8, 16, 8, 2)
    assert found.way.plan.world_size == 2048


def test_a_model_that_fits_nowhere_is_told_what_would_fit() -> None:
    with pytest.raises(SettingError) as told:
        best(job(llama31_405b(), 8, 64))
    assert "fits into the 80 GiB" in told.value.message
    assert "give 128 GPUs" in told.value.mend
    assert best(job(llama31_405b(), 128, 64)).memory.total <= 80 * 2**30


@pytest.mark.parametrize(
    ("plan", "rows", "words"),
    [
        (ParallelPlan(tp=8, dp=2), 1, "is for 16 GPUs, and there are 8"),
        (ParallelPlan(dp=8), 16, "cannot be dealt to dp=8"),
        (ParallelPlan(pp=8, virtual=8), 1, "cannot fill 64 stages"),
    ],
)
def test_a_layout_that_cannot_work_is_refused(plan: ParallelPlan, rows: int, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        check(job(), Way(plan, rows))


def test_no_layout_at_all() -> None:
    with pytest.raises(SettingError, match="no layout of 64 GPUs with pp=1, tp=8 divides this model and 1 sequences"):
        best(job(llama31_8b(), 64, 1, 2048), ParallelPlan(tp=8, pp=1), frozenset(("tp", "pp")))
