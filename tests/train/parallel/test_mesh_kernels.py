"""The compiled kernels under every layout: what is computed through them, and that it is what torch computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from layouts import Trajectory, find, trained
from processes import run_on

from herd.kernels import training, training_attention, training_loss
from herd.kernels.library import kernels
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.plan import parse_plan

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

CLOSE = 1e-5
STEPS, MICROBATCHES, LAYERS = 3, 5, 4
HEADS = {"dim": 128}  # heads of 32, which the kernel of attention takes
IN = dict.fromkeys(("rms_norm", "swiglu", "rotate"), training)
IN |= {"attention": training_attention, "cross_entropy": training_loss}
WHOLE = set(IN)
# Keys of other context ranks, and a vocabulary shared by tensor ranks, are torch's.
LAYOUTS = {
    "dp=2": WHOLE,
    "dp=2,shard=none": WHOLE,
    "pp=2,recompute=layer": WHOLE,
    "tp=2": WHOLE - {"cross_entropy"},
    "cp=2": WHOLE - {"attention"},
}


def counted(calls: Counter[str], name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        calls[name] += 1
        return real(*arguments)

    return call


def on_all(rank: int) -> dict[str, tuple[Trajectory, Counter[str]]]:
    """Work for `run_on`: what each layout learns, and what this rank called of the library."""
    calls, found = Counter[str](), {}
    for name, module in IN.items():
        setattr(module, name, counted(calls, name, getattr(module, name)))
    for plan in LAYOUTS:
        calls.clear()
        mesh = Mesh.of(parse_plan(plan), torch.device("cpu"))
        found[plan] = trained(find("packed", **HEADS), mesh, steps=STEPS), Counter(calls)
    return found


@cache
def on_two() -> list[dict[str, tuple[Trajectory, Counter[str]]]]:
    if kernels() is None:
        pytest.skip("the kernels were not compiled: no C compiler when herd was installed")
    return run_on(2, on_all)


@pytest.mark.parametrize("plan", LAYOUTS)
def test_a_layout_computes_through_the_library_what_torch_computes(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = on_two()[0][plan][0]
    monkeypatch.setattr("herd.train.kernels.training.usable", lambda *_: False)
    wanted = trained(find("packed", **HEADS), steps=STEPS)
    for got, expected in ((found.losses, wanted.losses), (found.norms, wanted.norms)):
        assert got == pytest.approx(expected, rel=CLOSE)
    for name, weight in wanted.weights.items():
        torch.testing.assert_close(found.weights[name], weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plan", LAYOUTS)
def test_each_rank_computes_its_part_through_the_library(plan: str) -> None:
    calls = [found[plan][1] for found in on_two()]
    assert set(calls[0] | calls[1]) == LAYOUTS[plan]
    layers = LAYERS // 2 if plan.startswith("pp") else LAYERS
    least = STEPS * MICROBATCHES * layers * (2 if "recompute" in plan else 1)  # the backward may make it again
    assert calls[0]["swiglu"] == calls[1]["swiglu"] >= least
