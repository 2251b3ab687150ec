"""Runs on several processes, killed and taken up again: the same plan to the same bits, any other plan goes on."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from layouts import Trajectory, find, settings, trained
from processes import RankError, run_on

from herd.progress import Silent
from herd.train.loop import train
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.plan import parse_plan
from herd.train.sources import FixedBatches
from herd.weights.convert import convert
from herd.weights.hf import load_model

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SAVING = {"checkpoint_every_steps": 3, "keep": 1, "anneal_steps": 4}
KILLED_AFTER = 8  # steps: in the middle of the annealing, after the checkpoint of step 6


class KillAt(Silent):
    """Rank 0 hears of every step; at one it is gone, as soon as the checkpoint of step 6 stands: what follows counts
    on that one, and on a busy machine its writer may be behind."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = folder / "checkpoints" / "step-6"

    def update(self, done, total, unit, facts=None):
        if done == KILLED_AFTER:
            until = time.monotonic() + 60
            while not self.checkpoint.is_dir() and time.monotonic() < until:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)


def on(rank: int, plan: str, folder: Path, kill: bool) -> Trajectory:
    """Work for `run_on`: the case of language modelling under `plan`, from what stands in `folder`."""
    mesh = Mesh.of(parse_plan(plan), torch.device("cpu"))
    case = find("packed")
    if kill:
        steps = [case.batches[at:] + case.batches[:at] for at in range(len(case.batches))]
        train(case.model(), case.objective, FixedBatches(steps), settings(**SAVING), folder, KillAt(folder), mesh=mesh)
    return trained(case, mesh, folder, **SAVING)


@pytest.mark.parametrize("plan", ["dp=2", "pp=2"])
def test_a_killed_run_goes_on_to_the_same_bits_and_on_other_plans(tmp_path: Path, plan: str) -> None:
    straight = run_on(2, on, plan, tmp_path / "straight", False)[0]
    with pytest.raises(RankError):
        run_on(2, on, plan, tmp_path / "killed", True)
    for other in ("four", "one"):
        shutil.copytree(tmp_path / "killed", tmp_path / other)
    again = run_on(2, on, plan, tmp_path / "killed", False)[0]
    assert again.losses == straight.losses
    assert again.norms == straight.norms
    assert all(torch.equal(again.weights[name], weights) for name, weights in straight.weights.items())
    four = run_on(4, on, "dp=2,tp=2", tmp_path / "four", False)[0]
    one = trained(find("packed"), None, tmp_path / "one", **SAVING)
    for found in (four, one):
        assert found.losses[:6] == straight.losses[:6]  # as the history has them
        assert found.losses == pytest.approx(straight.losses, rel=1e-5)
        for name, weights in straight.weights.items():
            torch.testing.assert_close(found.weights[name], weights, rtol=1e-4, atol=1e-5)
    (last,) = (tmp_path / "four" / "checkpoints").iterdir()
    assert len(list(last.glob("model-*.safetensors"))) == 4
    convert(last, tmp_path / "hf", to="hf")
    for name, weights in load_model(tmp_path / "hf").named_parameters():
        assert torch.equal(weights, four.weights[name]), name  # the mean of the annealing, as the run ended in
