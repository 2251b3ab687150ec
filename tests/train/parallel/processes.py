"""Several processes over gloo for a test: `run_on(4, work, argument)` runs `work(rank, argument)` in each.

`work` and what it takes and gives are picklable (functions at the top of a module). Results come back by rank; the
first error of any rank is raised with its rank and traceback, and the others are ended. The processes are forked from a
server that has imported torch once: a start costs little, were it sixteen of them.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_CONTEXT = mp.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch.distributed.fsdp", "torch.distributed.tensor.parallel", "numpy"])


class RankError(AssertionError):
    """What a rank raised: its number and its traceback."""


def run_on(world: int, work: Callable[..., T], *arguments: Any, seconds: float = 140, group: bool = True) -> list[T]:
    """The results of `work(rank, *arguments)` on `world` processes of one gloo group.

    `group` false: only torchrun's environment is set, and `work` starts the group itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        jobs = [
            _CONTEXT.Process(target=_enter, args=(rank, world, port, folder, work, arguments, group), daemon=True)
            for rank in range(world)
        ]
        for job in jobs:
            job.start()
        try:
            return _collect(jobs, Path(folder), time.monotonic() + seconds)
        finally:
            for job in jobs:
                if job.is_alive():
                    job.kill()
                job.join()


def _collect(jobs: list[Any], folder: Path, until: float) -> list[Any]:
    while any(job.is_alive() for job in jobs):
        failed = sorted(folder.glob("error-*"), key=lambda path: path.stat().st_mtime)
        if failed:
            raise RankError(failed[0].read_text())
        dead = [rank for rank, job in enumerate(jobs) if job.exitcode]
        if dead and not list(folder.glob("error-*")):
            raise RankError(f"rank {dead[0]} ended with exit code {jobs[dead[0]].exitcode}")
        if time.monotonic() > until:
            waiting = [rank for rank, job in enumerate(jobs) if job.is_alive()]
            raise RankError(f"ranks {waiting} did not end in time")
        time.sleep(0.02)
    failed = sorted(folder.glob("error-*"))
    if failed:
        raise RankError(failed[0].read_text())
    return [pickle.loads((folder / f"result-{rank}").read_bytes()) for rank in range(len(jobs))]


def _enter(
    rank: int, world: int, port: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...], group: bool
) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    try:
        import torch
        from torch import distributed as dist

        torch.set_num_threads(1)
        if group:
            dist.init_process_group("gloo", timeout=timedelta(seconds=100))
        result = work(rank, *arguments)
        place = Path(folder) / f"result-{rank}"
        place.with_suffix(".part").write_bytes(pickle.dumps(result))
        place.with_suffix(".part").rename(place)
        if dist.is_initialized():
            dist.destroy_process_group()
    except BaseException:
        place = Path(folder) / f".error-{rank}"
        place.write_text(f"rank {rank} of {world}:\n{traceback.format_exc()}")
        place.rename(Path(folder) / f"error-{rank}")
        sys.stderr.flush()
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
