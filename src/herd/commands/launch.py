"""Commands that torchrun may start on many processes: the right runner, and one voice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from herd.llama.config import LlamaConfig
from herd.road.machine import cores
from herd.stages import Runner, Watch
from herd.train.parallel.plan import ParallelPlan, parse_plan
from herd.train.settings import TrainSettings


def is_first_process() -> bool:
    """Whether this process speaks and writes for all; true without torchrun."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def runner_of(
    plan: ParallelPlan, folder: Path, watch: Watch, device: str, alone: Callable[[], Runner]
) -> Iterator[Runner]:
    """The runner for the processes that are here: what `alone` makes for one, or one that all of them share.

    Raises SettingError when torchrun started another number of processes than the plan is for.
    """
    from herd.train.parallel.mesh import processes

    with processes(plan, device) as mesh:
        if mesh is None:
            yield alone()
            return
        import torch

        from herd.road.together import TogetherRunner

        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, (cores() or 1) // beside))
        yield TogetherRunner(folder, mesh, watch, device=str(mesh.device))


def show_plan(text: str, config: LlamaConfig, phases: Sequence[TrainSettings]) -> None:
    """What the plan costs each process, training by training."""
    from herd.train.parallel.estimate import estimate, told

    plan = parse_plan(text)
    print(f"plan     {plan}: {plan.world_size} processes")
    if plan.world_size == 1:  # it runs without a plan, which would recompute by default
        plan = replace(plan, recompute="nothing")
    for number, phase in enumerate(phases, 1):
        for line in told(estimate(config, plan, phase)):
            print(line + (f"   (phase {number})" if len(phases) > 1 else ""))
