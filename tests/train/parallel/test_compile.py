"""torch.compile, a layer at a time, under FSDP: one graph for all layers, and what one process learns without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from cases import Case
from layouts import Trajectory, find, trained
from processes import run_on

from herd.train.parallel.mesh import Mesh
from herd.train.parallel.plan import parse_plan

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

STEPS, CLOSE = 3, 1e-5


def case() -> Case:
    """Two micro-batches of one shape, or layers would be compiled again."""
    whole = find("whole rows", n_layers=2)
    return replace(whole, batches=[whole.batches[0], whole.batches[4]])


def compiled(rank: int) -> tuple[Trajectory, Mapping[str, int], Mapping[str, int]]:
    """Work for `run_on`: what is learnt, what was compiled, and where compiling gave up."""
    from torch._dynamo.utils import counters

    found = trained(case(), Mesh.of(parse_plan("dp=2,compile=true"), torch.device("cpu")), steps=STEPS)
    return found, dict(counters["stats"]), dict(counters["graph_break"])


def test_compiled_layers_under_fsdp_learn_what_one_process_learns() -> None:
    wanted = trained(case(), steps=STEPS)
    for found, stats, breaks in run_on(2, compiled):
        assert stats["unique_graphs"] == 1
        assert not breaks
        assert found.losses == pytest.approx(wanted.losses, rel=CLOSE)
        assert found.norms == pytest.approx(wanted.norms, rel=CLOSE)
        for name, weight in wanted.weights.items():
            assert float((found.weights[name] - weight).abs().max()) < 1e-4, name
