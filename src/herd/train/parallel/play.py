"""A pipeline's schedule played in time: when each action begins and ends, and in which order results change hands.

No torch. `played` takes any times; the trainer takes its order of transfers from a play with nominal ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from herd.train.parallel.schedule import Action, Schedule


@dataclass(frozen=True, slots=True)
class Played:
    """An action of a rank, with its times in the unit of what it was played with."""

    rank: int
    action: Action
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Move:
    """One end of a transfer: the result of `made` leaves its rank, or arrives where the next stage is."""

    way: Literal["send", "receive"]
    made: Action
    peer: int  # the pipeline rank at the other end


Cost = Callable[[Action], float]


def nominal(action: Action) -> float:
    """A backward takes two forwards: it makes two products for each one of the forward."""
    return 1.0 if action.kind == "forward" else 2.0


def played(
    schedule: Schedule, seconds: Cost = nominal, transfer: Cost | None = None, earliest: Cost | None = None
) -> list[Played]:
    """All actions, in the order of their ends; an action begins when its rank is free and what it needs is there.

    `transfer` is how long the result of an action travels to another rank, beside whatever the ranks do then;
    `earliest` a time before which an action does not begin, whatever else is there.
    """
    orders = [schedule.actions(rank) for rank in range(schedule.pp)]
    free, done, ends, found = [0.0] * schedule.pp, [0] * schedule.pp, dict[Action, float](), list[Played]()

    def arrival(need: Action, rank: int) -> float:
        away = transfer is not None and schedule.rank_of(need.stage) != rank
        return ends[need] + (transfer(need) if away and transfer else 0.0)

    def advance(rank: int) -> Iterator[Played]:
        while done[rank] < len(orders[rank]):
            action = orders[rank][done[rank]]
            needs = schedule.needs(action)
            if any(need not in ends for need in needs):
                return
            start = max([free[rank], earliest(action) if earliest else 0.0, *(arrival(need, rank) for need in needs)])
            free[rank] = ends[action] = start + seconds(action)
            done[rank] += 1
            yield Played(rank, action, start, free[rank])

    before = -1
    while len(found) != before:
        before = len(found)
        for rank in range(schedule.pp):
            found += advance(rank)
    assert len(found) == sum(map(len, orders)), "a schedule that waits for itself"
    return sorted(found, key=lambda one: (one.end, one.start, one.rank))


def bubble(timeline: list[Played], pp: int) -> float:
    """Time at rest over time at work, all ranks together."""
    worked = sum(one.end - one.start for one in timeline)
    return pp * max(one.end for one in timeline) / worked - 1.0


@lru_cache(maxsize=8)
def with_moves(schedule: Schedule, learn: bool = True) -> tuple[tuple[Action | Move, ...], ...]:
    """What each rank does in one step, with what it sends and receives; `learn` false leaves the backwards out.

    Both ends of a transfer stand at one place of a single order of everything, which each rank's list is a part of.
    So no rank ever waits for another that waits for it, even where a send returns only once it is received, and the
    transfers between two ranks have one order at both ends, as NCCL needs. A receive stands no earlier than its
    result is made, so that its buffer holds no memory before.
    """
    steps: list[list[Action | Move]] = [[] for _ in range(schedule.pp)]
    for one in played(schedule):
        if not learn and one.action.kind == "backward":
            continue
        steps[one.rank].append(one.action)
        wanted = schedule.receiver(one.action)
        if wanted is not None:
            there = schedule.rank_of(wanted.stage)
            steps[one.rank].append(Move("send", one.action, there))
            steps[there].append(Move("receive", one.action, one.rank))
    return tuple(map(tuple, steps))
