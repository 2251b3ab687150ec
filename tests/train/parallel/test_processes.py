"""The harness itself: a failure names its rank, and nobody waits for the dead."""

import os

import pytest
from processes import ProcessFailed, on_processes
from torch import distributed as dist

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def test_a_rank_that_raises_or_dies_ends_all_and_is_named() -> None:
    assert on_processes(rank_and_size, 2, "x") == [("x", 0, 2), ("x", 1, 2)]
    for body, said in ((raises, "rank 1 of 2:(.|\n)*ValueError: lost"), (dies, "rank 1 of 2:\nit died")):
        with pytest.raises(ProcessFailed, match=said):
            on_processes(body, 2, seconds=20)


def rank_and_size(rank: int, word: str) -> tuple[str, int, int]:
    return word, rank, dist.get_world_size()


def raises(rank: int) -> None:
    if rank == 1:
        raise ValueError("lost")
    dist.barrier()


def dies(rank: int) -> None:
    if rank == 1:
        os._exit(3)
    dist.barrier()
