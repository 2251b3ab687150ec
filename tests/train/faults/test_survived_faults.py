"""Under torchrun with restarts: whatever strikes a rank, the job ends as one that nothing struck, and names it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from herd.train.faults.runlog import Account, read_account

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

PROGRAM = Path(__file__).with_name("faulty_run.py")
FSDP, REPLICAS = "dp=2", "dp=2,shard=none"

Started = Callable[[str, str], Path]


def start(folder: Path, plan: str, fault: str, restarts: int = 1) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [
        *torchrun,
        f"--max-restarts={restarts}",
        "--monitor-interval=0.1",
        str(PROGRAM),
        str(folder),
        plan,
        fault,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(job: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = job.communicate(timeout=140)
    finally:
        job.kill()
    return job.returncode, output


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The folder of a run under a plan that nothing strikes; made once."""
    made: dict[tuple[str, str], Path] = {}

    def run(plan: str, kind: str = "none") -> Path:
        if (plan, kind) not in made:
            folder = tmp_path_factory.mktemp("undisturbed")
            code, output = finish(start(folder, plan, kind))
            assert code == 0, output
            made[plan, kind] = folder
        return made[plan, kind]

    return run


def rows_of(folder: Path) -> list[dict[int, str]]:
    """Of each rank: which rows step by step went into the weights that the run ended in, the last try of each step."""
    found = []
    for path in sorted(folder.glob("rows-*.jsonl")):
        tries: list[list[Any]] = [json.loads(line) for line in path.read_text().splitlines()]
        found.append(dict(tries))
    return found


def losses_of(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "run" / "history.jsonl").read_text().splitlines()]


def assert_as_if_nothing_had_struck(folder: Path, undisturbed: Path) -> None:
    assert losses_of(folder) == losses_of(undisturbed)
    assert rows_of(folder) == rows_of(undisturbed)
    ours, theirs = torch.load(folder / "weights.pt"), torch.load(undisturbed / "weights.pt")
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def account_of(folder: Path) -> Account:
    account = read_account(folder / "run")
    assert account.ended
    assert account.processes == 2
    assert 0 < account.effective < 1
    return account


@pytest.mark.parametrize(
    ("fault", "plan", "cause", "category", "said"),
    [
        ("kill", FSDP, "process killed", "unknown", "rank 1 at step"),
        ("hang", FSDP, "rank hung", "unknown", "rank 1 hangs at step 5, forward of microbatch 1 of 2, faulty_run.py"),
        ("freeze", FSDP, "rank hung", "unknown", "rank 1 hangs"),
        ("nan", FSDP, "loss or gradient not usable", "unknown", "the gradient norm is nan"),
        ("nan", REPLICAS, "loss or gradient not usable", "unknown", "the gradient norm is nan"),
        ("flip", FSDP, "silent data corruption", "GPU", "layers.1.mlp.up_proj.weight changed by itself"),
        ("late-flip", REPLICAS, "silent data corruption", "GPU", "layers.1.mlp.up_proj.weight"),
    ],
)
def test_a_struck_run_ends_as_one_that_was_not(
    tmp_path: Path, undisturbed: Started, fault: str, plan: str, cause: str, category: str, said: str
) -> None:
    code, output = finish(start(tmp_path / "struck", plan, fault))
    assert code == 0, output
    assert_as_if_nothing_had_struck(tmp_path / "struck", undisturbed(plan, "none"))
    (stopped,) = account_of(tmp_path / "struck").interruptions
    assert (stopped.cause, stopped.category) == (cause, category)
    assert said in stopped.detail, output
    assert 1 in stopped.ranks
    if fault != "late-flip":  # of two replicas nothing tells which is right
        assert stopped.ranks == (1,)
    assert stopped.resumed_step in (0, 2, 4)
    assert stopped.down_seconds > 0


@pytest.mark.parametrize("plan", ["tp=2", "pp=2"])
def test_ranks_of_one_model_survive_a_kill_a_hang_a_nan_and_a_signal(
    tmp_path: Path, undisturbed: Started, plan: str
) -> None:
    """One job of five lives. A NaN is met by both ranks in the backward, so both may be named; else the one struck."""
    code, output = finish(start(tmp_path / "struck", plan, "all", restarts=4))
    assert code == 0, output
    assert_as_if_nothing_had_struck(tmp_path / "struck", undisturbed(plan, "none"))
    stopped = account_of(tmp_path / "struck").interruptions
    assert [one.cause for one in stopped] == [
        "process killed",
        "rank hung",
        "loss or gradient not usable",
        "told to stop",
    ], output
    killed, hung, spoilt, told = stopped
    assert killed.ranks == hung.ranks == (1,)
    assert 1 in spoilt.ranks
    assert "rank 1 hangs at step 4, forward" in hung.detail
    assert "faulty_run.py" in hung.detail
    assert killed.resumed_step in (0, 2)  # the checkpoint of step 2 may not have been whole
    assert [one.resumed_step for one in (hung, spoilt, told)] == [2, 4, 7]
    assert told.again_seconds == 0


def test_a_full_disk_ends_the_job_which_goes_on_when_there_is_room(tmp_path: Path, undisturbed: Started) -> None:
    code, output = finish(start(tmp_path / "struck", FSDP, "disk"))
    assert code == 0, output
    assert "rank 1 cannot write a checkpoint: File too large" in output
    assert_as_if_nothing_had_struck(tmp_path / "struck", undisturbed(FSDP, "none"))
    (stopped,) = account_of(tmp_path / "struck").interruptions
    assert (stopped.cause, stopped.category) == ("disk full or not writable", "host")


def test_a_gradient_that_is_never_finite_ends_the_job_for_good(tmp_path: Path) -> None:
    """The second time it is no passing fault: every further start refuses at once, with a clear word."""
    code, output = finish(start(tmp_path / "struck", FSDP, "nan-again", restarts=2))
    assert code != 0
    assert "step 5 failed twice in the same way" in output
    assert [path.name for path in (tmp_path / "struck" / "run" / "failed").iterdir()] == ["step-4"]
    assert (tmp_path / "struck" / "run" / "failed-batch-step5-rank1.safetensors").exists()
    assert not (tmp_path / "struck" / "run" / "failed-batch-step5.safetensors").exists()
    tries = [step for step, _ in map(json.loads, (tmp_path / "struck" / "rows-1.jsonl").read_text().splitlines())]
    assert tries.count(5) == 2
    stopped = read_account(tmp_path / "struck" / "run").interruptions
    assert [one.ranks for one in stopped] == [(1,), (1,)]


def test_a_slow_rank_is_reported_and_the_run_goes_on(tmp_path: Path, undisturbed: Started) -> None:
    code, output = finish(start(tmp_path / "struck", FSDP, "slow", restarts=0))
    assert code == 0, output
    assert_as_if_nothing_had_struck(tmp_path / "struck", undisturbed(FSDP, "none"))
    account = account_of(tmp_path / "struck")
    assert account.interruptions == []
    assert {slow["rank"] for slow in account.slow} == {1}
    assert "note: rank 1 is slow" in output


def test_told_to_stop_a_job_keeps_a_checkpoint_and_goes_on_from_that_step(tmp_path: Path, undisturbed: Started) -> None:
    folder = tmp_path / "told"
    job, history = start(folder, FSDP, "term"), folder / "run" / "history.jsonl"
    until = time.monotonic() + 100
    while not (history.exists() and len(history.read_text().splitlines()) >= 3) and time.monotonic() < until:
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    code, output = finish(job)
    assert code != 0
    steps = len(losses_of(folder))
    assert 3 <= steps < 40, output
    assert (folder / "run" / "checkpoints" / f"step-{steps}").is_dir()
    (stopped,) = read_account(folder / "run").interruptions
    assert (stopped.cause, stopped.category, stopped.step) == ("told to stop", "planned", steps)
    code, output = finish(start(folder, FSDP, "long"))
    assert code == 0, output
    assert_as_if_nothing_had_struck(folder, undisturbed(FSDP, "long"))
    (stopped,) = account_of(folder).interruptions
    assert (stopped.resumed_step, stopped.again_seconds) == (steps, 0)
    shutil.rmtree(folder)
