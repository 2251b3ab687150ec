"""A run killed, stopped, short of disk or not alone: nothing is damaged, and the next run ends in the same bits.

A recipe of its own, smaller than pico and without rounds, which tests/posttrain interrupts; each test begins with the
stages up to the shards, copied from a whole run.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from road_commands import contents, end, herd, lines_of, stages, start, succeed, wait_until, weights

from herd.config import save
from herd.recipe import PosttrainRecipe, Recipe
from herd.recipes.pico import pico
from herd.train.checkpoints import Checkpoints

pytestmark = pytest.mark.slow

EARLY = ("world", "documents", "corpus", "tokenizer", "shards")
STEPS = 36


def recipe() -> Recipe:
    full = pico()
    assert full.posttrain is not None
    often = {"batch_tokens": 512, "checkpoint_every_steps": 7}
    phase = replace(full.flagship.pretrain[0], steps=STEPS, anneal_steps=9, average_every=3, **often)
    begin = replace(full.posttrain.start, steps=20, warmup_steps=2, **often)
    return replace(
        full,
        flagship=replace(full.flagship, pretrain=(phase,)),
        posttrain=PosttrainRecipe(begin, rounds=()),
        small=None,
        ladder=None,
        documents=replace(full.documents, stdlib_modules=2),
        threads=1,
    )


class Runs:
    """A whole run to compare with, and fresh folders that have its early stages."""

    def __init__(self, folder: Path) -> None:
        self.recipe, self.whole = folder / "recipe.json", folder / "whole"
        save(self.recipe, recipe())
        succeed("raise", self.recipe, "--out", self.whole)

    def fresh(self, folder: Path) -> Path:
        for name, path in stages(self.whole).items():
            if name in EARLY:
                shutil.copytree(path, folder / "stages" / path.name)
        return folder

    def begin(self, folder: Path, *more: object, max_file_bytes: int = 0) -> subprocess.Popen[str]:
        return start("raise", self.recipe, "--out", folder, *more, max_file_bytes=max_file_bytes)

    def same_bits(self, folder: Path) -> None:
        """Every model that the run made has the weights of the run that nobody disturbed."""
        found, expected = stages(folder), stages(self.whole)
        assert {path.name for path in found.values()} == {path.name for path in expected.values()}
        models = [name for name in expected if list(expected[name].glob("*.safetensors"))]
        assert {"flagship-base", "flagship-start", "flagship-fp8"} <= set(models)
        assert {name: weights(found[name]) for name in models} == {name: weights(expected[name]) for name in models}
        assert not list((folder / "work").iterdir())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("interruptions"))


@pytest.fixture
def folder(runs: Runs, tmp_path: Path) -> Path:
    return runs.fresh(tmp_path / "run")


def trained(run: Path, stage: str, steps: int) -> Callable[[], bool]:
    """Whether the training under way in `stage` has done `steps` steps."""

    def holds() -> bool:
        return any(lines_of(file) >= steps for file in run.glob(f"work/{stage}-*/scratch/**/history.jsonl"))

    return holds


def base_checkpoints(run: Path) -> Path:
    return next(run.glob("work/flagship-base-*/scratch/training")) / "checkpoints"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_killed_three_times_it_ends_in_the_same_bits(runs: Runs, folder: Path) -> None:
    chance = random.Random(3)
    for stage, first, last in (("flagship-base", 8, 13), ("flagship-base", 22, 27), ("flagship-start", 8, 13)):
        steps = chance.randint(first, last)
        process = runs.begin(folder)
        wait_until(process, trained(folder, stage, steps), f"step {steps} of {stage}")
        process.send_signal(signal.SIGKILL)
        assert end(process).returncode == -signal.SIGKILL
        assert not any(name.startswith(f"{stage}-") for name in names(folder / "stages"))
    told = end(runs.begin(folder)).stdout
    assert "going on from checkpoint step-" in told
    runs.same_bits(folder)


def test_ctrl_c_keeps_a_checkpoint_from_which_the_next_run_goes_on(runs: Runs, folder: Path) -> None:
    process = runs.begin(folder)
    wait_until(process, trained(folder, "flagship-base", 10), "step 10")
    process.send_signal(signal.SIGINT)
    stopped = end(process)
    assert stopped.returncode == 130, stopped.stdout
    assert "Traceback" not in stopped.stdout
    assert "the same command goes on from here" in stopped.stdout
    steps = lines_of(base_checkpoints(folder).parent / "history.jsonl")
    assert 10 <= steps < STEPS
    assert f"step-{steps}" in names(base_checkpoints(folder))  # the step under way was ended and kept
    told = succeed("raise", runs.recipe, "--out", folder)
    assert f"going on from checkpoint step-{steps}" in told
    runs.same_bits(folder)


def test_a_second_ctrl_c_does_not_wait_for_the_step(runs: Runs, folder: Path) -> None:
    process = runs.begin(
        folder,
        *("--set", f"flagship.pretrain.0.batch_tokens={128 * 256}"),  # one step is 128 forwards: long enough to press
        *("--set", "flagship.pretrain.0.microbatch_tokens=256"),
        *("--set", "flagship.pretrain.0.checkpoint_every_steps=0"),
    )
    wait_until(process, lambda: any(folder.glob("work/flagship-base-*/scratch/training/history.jsonl")), "training")
    began = time.monotonic()
    wait_until(process, trained(folder, "flagship-base", 1), "the first step")
    step_seconds = time.monotonic() - began
    process.send_signal(signal.SIGINT)
    time.sleep(step_seconds / 10)  # several forwards, on a machine of any speed: two presses at once would be one
    process.send_signal(signal.SIGINT)
    stopped = end(process)
    assert stopped.returncode == 130, stopped.stdout
    assert "Traceback" not in stopped.stdout
    assert lines_of(base_checkpoints(folder).parent / "history.jsonl") == 1
    assert names(base_checkpoints(folder)) == []


def test_a_full_disk_during_a_checkpoint_damages_nothing(runs: Runs, folder: Path) -> None:
    process = runs.begin(folder)
    wait_until(process, trained(folder, "flagship-base", 9), "step 9")
    process.send_signal(signal.SIGINT)
    assert end(process).returncode == 130
    checkpoints = base_checkpoints(folder)
    before = {"stages": contents(folder / "stages"), "checkpoints": contents(checkpoints)}
    model = max(checkpoints.glob("step-*/model.safetensors")).stat().st_size
    # The weights still find room, the optimiser's moments, twice as large, do not.
    full = end(runs.begin(folder, max_file_bytes=model + model // 2))
    assert full.returncode == 6, full.stdout
    assert "Traceback" not in full.stdout
    assert "make room on that disk" in full.stdout
    assert {"stages": contents(folder / "stages"), "checkpoints": contents(checkpoints)} == before
    assert Checkpoints(checkpoints, 2).newest(_Loud()) is not None
    told = succeed("raise", runs.recipe, "--out", folder)
    assert "going on from checkpoint step-" in told
    runs.same_bits(folder)


class _Loud:
    """Progress that takes no complaint about a damaged checkpoint."""

    def update(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        raise AssertionError(text)


def test_a_second_run_in_the_folder_is_refused_and_the_first_goes_on(runs: Runs, folder: Path) -> None:
    first = runs.begin(folder)
    wait_until(first, trained(folder, "flagship-base", 1), "the first step")
    first.send_signal(signal.SIGSTOP)  # it holds the folder for as long as the second one looks
    try:
        second = herd("raise", "pico", "--out", folder)
        assert second.returncode == 7, second.stdout
        assert f"process {first.pid}" in second.stdout
        assert "--out" in second.stdout
    finally:
        first.send_signal(signal.SIGCONT)
    done = end(first)
    assert done.returncode == 0, done.stdout
    runs.same_bits(folder)
