"""The table: every layout learns what one process learns, for every objective, over ten steps in float32.

Losses and gradient norms are within 1e-5, relative; micro-batches are uneven, rows packed with documents, and neither
the vocabulary of 51 nor the rows of a micro-batch divide by the ranks.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
from layouts import Trajectory, find, laid_out, trained
from processes import run_on

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

OBJECTIVES = ("packed", "whole rows", "distillation", "dpo", "reward")
CLOSE = 1e-5
TABLE = [
    (2, ["dp=2,shard=none", "dp=2", "tp=2", "cp=2"], OBJECTIVES),
    (2, ["pp=2", "pp=2,virtual=2", "dp=2,shard=reshard"], OBJECTIVES),
    *((4, [plan], ("packed", "dpo", "reward")) for plan in ("pp=2,tp=2", "dp=2,tp=2", "cp=2,tp=2")),
    (16, ["pp=2,dp=2,cp=2,tp=2"], ("packed",)),
]


@cache
def reference(name: str) -> Trajectory:
    return trained(find(name))


@pytest.mark.parametrize(("world", "plans", "names"), TABLE, ids=[" ".join(plans) for _, plans, _ in TABLE])
def test_every_layout_learns_what_one_process_learns(world: int, plans: list[str], names: tuple[str, ...]) -> None:
    found = run_on(world, laid_out, plans, list(names), {}, seconds=600)[0]
    for plan, name in product(plans, names):
        one, wanted = found[plan, name], reference(name)
        assert one is not None
        for got, expected in ((one.losses, wanted.losses), (one.norms, wanted.norms)):
            assert len(got) == len(expected) == 10
            assert got == pytest.approx(expected, rel=CLOSE), (plan, name)
        assert one.metrics == pytest.approx(wanted.metrics, rel=CLOSE, abs=CLOSE), (plan, name)
        for key, weight in wanted.weights.items():  # AdamW moves elements of tiny gradients by their sign
            worst = float((one.weights[key] - weight).abs().max())
            assert worst < 1e-4, (plan, name, key)
