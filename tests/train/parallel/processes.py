"""Runs a function on several processes that form a group over gloo, and gives back what each returned.

    assert on_processes(body, 4, "argument") == [...]        # body(rank, "argument"), a function of a module

The processes are forked from a server that has imported torch once, so that sixteen start as fast as one.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch.distributed.fsdp", "torch.distributed.tensor.parallel", "numpy"])


class ProcessFailed(AssertionError):
    """What a process raised, with its rank and traceback."""


def on_processes(body: Callable[..., Any], count: int, *arguments: Any, seconds: float = 90) -> list[Any]:
    """`body(rank, *arguments)` on ranks 0 to count-1. The first that fails ends all; so does the clock."""
    with tempfile.TemporaryDirectory() as folder:
        pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(count)]
        workers = [
            _CONTEXT.Process(
                target=_work, args=(rank, count, Path(folder) / "store", ours, seconds, body, arguments), daemon=True
            )
            for rank, (_, ours) in enumerate(pipes)
        ]
        for worker in workers:
            worker.start()
        for _, ours in pipes:
            ours.close()
        try:
            return _results([theirs for theirs, _ in pipes], seconds)
        finally:
            for worker in workers:
                worker.join(5)
                worker.kill()
                worker.join()


def _results(pipes: list[Connection], seconds: float) -> list[Any]:
    found: dict[int, Any] = {}
    while len(found) < len(pipes):
        ready = wait([pipe for rank, pipe in enumerate(pipes) if rank not in found], timeout=2 * seconds)
        if not ready:
            raise ProcessFailed(f"ranks {sorted(set(range(len(pipes))) - set(found))} say nothing for {seconds:.0f} s")
        for pipe in ready:
            rank = pipes.index(pipe)  # type: ignore[arg-type]
            try:
                failed, found[rank] = pipes[rank].recv()
            except EOFError:
                failed, found[rank] = True, "it died without a word"
            if failed:
                raise ProcessFailed(f"rank {rank} of {len(pipes)}:\n{found[rank]}")
    return [found[rank] for rank in range(len(pipes))]


def _work(
    rank: int, count: int, store: Path, pipe: Connection, seconds: float, body: Callable[..., Any], arguments: Any
) -> None:
    import torch
    from torch import distributed as dist

    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=count, timeout=timedelta(seconds=seconds)
        )
        answer = False, body(rank, *arguments)
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        answer = True, traceback.format_exc()
    pipe.send(answer)
