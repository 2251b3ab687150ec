"""The harness itself: a failure names its rank, and nobody waits for the dead."""

import os
import time

import pytest
from processes import RankError, run_on
from torch import distributed as dist

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def test_a_rank_that_raises_or_dies_ends_all_and_is_named() -> None:
    assert run_on(2, rank_and_size, "x") == [("x", 0, 2), ("x", 1, 2)]
    for body, said in ((raises, "rank 1 of 2:(.|\n)*ValueError: lost"), (dies, "rank 1 ended with exit code 3")):
        with pytest.raises(RankError, match=said):
            run_on(2, body, seconds=20)


def rank_and_size(rank: int, word: str) -> tuple[str, int, int]:
    return word, rank, dist.get_world_size()


def raises(rank: int) -> None:
    if rank == 1:
        raise ValueError("lost")
    dist.barrier()


def dies(rank: int) -> None:
    if rank == 1:
        os._exit(3)
    time.sleep(2)
