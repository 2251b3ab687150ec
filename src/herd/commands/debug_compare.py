"""`herd debug compare PLAN_A PLAN_B ...`: the same first steps under several plans, and what differs first."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from herd.errors import HerdError, SettingError
from herd.train.parallel.plan import parse_plan

if TYPE_CHECKING:
    from herd.train.faults.record import Spec

_TOLD = 1500  # characters of what a run that failed has said


def compare_plans(
    plans: Sequence[str], model: Path, batch: Path | None, *, steps: int, tolerance: float, device: str
) -> int:
    """Prints, for each plan after the first, the first tensor that differs by more than `tolerance`; 1 if one does."""
    from herd.train.faults.differences import differences, read_record
    from herd.train.faults.record import Spec

    if len(plans) < 2:
        raise SettingError("one plan is compared with nothing", where="compare", mend="name two, e.g. dp=1 tp=2")
    if steps < 1 or tolerance < 0:
        raise SettingError("--steps is 1 or more, --tolerance 0 or more", where="compare")
    for plan in plans:
        parse_plan(plan)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="herd-compare-") as place:
        spec = Spec(str(model), "", "", str(batch or ""), steps=steps, device=device)
        folders = [Path(place) / str(number) for number in range(len(plans))]
        for plan, folder in zip(plans, folders, strict=True):
            _run(replace(spec, plan=plan, out=str(folder)), folder)
        one, order = read_record(folders[0])
        for plan, folder in zip(plans[1:], folders[1:], strict=True):
            found = list(differences(one, read_record(folder)[0], order))
            first = next((each for each in found if each.relative > tolerance), None)
            if first is None:
                widest = max(found, key=lambda each: each.relative)
                print(f"{plans[0]} and {plan}: alike within {tolerance:g} in {len(found):,} tensors; widest: {widest}")
            else:
                failed = 1
                print(f"{plans[0]} and {plan} differ first at {first}")
    return failed


def _run(spec: Spec, folder: Path) -> None:
    """One plan, in processes of its own on this machine."""
    from herd.train.faults.record import write

    world = parse_plan(spec.plan).world_size
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"] if world > 1 else []
    command = [sys.executable, *launch, "-m", "herd.train.faults.record", str(write(spec, folder))]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise HerdError(
            f"the run under {spec.plan} failed with exit code {done.returncode}:\n{done.stderr[-_TOLD:]}",
            where=spec.plan,
            mend="the first error above is the cause; a plan must fit the model and the batch",
        )
