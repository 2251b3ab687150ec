"""In which order the ranks of a pipeline run forwards and backwards: values, which the trainer runs (`pipeline.py`) and
the planner plays (`play.py`).

A model is cut into S = PP * V stages; stage s is on rank s % PP, so that each rank holds V stages ("virtual"; paper,
section 3.3.2). Every rank forwards its stages in one fixed sequence and backwards them in another: a run of N
consecutive micro-batches goes through its first stage, then through its second, and so on (backwards from its last).
N = PP is called depth-first, N = M, all micro-batches of the step, breadth-first; any N is allowed, and M may be
anything. After some forwards to warm up, a rank alternates one forward and one backward ("1F1B"). With V = 1 that is
the schedule of PipeDream-Flush, with more the interleaved one of Narayanan et al. 2021.

Played with equal times the pipeline stands still for (PP - 1) / (V * M) of the time that it works, when no run is
shorter than PP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from herd.errors import SettingError

Kind = Literal["forward", "backward"]


@dataclass(frozen=True, slots=True)
class Action:
    """One micro-batch going through one stage, one way. Stages and micro-batches count from 0."""

    kind: Kind
    stage: int
    microbatch: int


@dataclass(frozen=True)
class Schedule:
    """The order of one step. `consecutive` is the paper's N; 0 stands for PP."""

    pp: int
    microbatches: int
    virtual: int = 1
    consecutive: int = 0

    def __post_init__(self) -> None:
        for name, least in (("pp", 1), ("microbatches", 1), ("virtual", 1), ("consecutive", 0)):
            if getattr(self, name) < least:
                raise SettingError(f"{name} is {getattr(self, name)}", where=name, mend=f"give {least} or more")

    @property
    def stages(self) -> int:
        return self.pp * self.virtual

    def rank_of(self, stage: int) -> int:
        return stage % self.pp

    def stages_of(self, rank: int) -> range:
        """The stages that a rank holds, first to last."""
        return range(rank, self.stages, self.pp)

    @cached_property
    def runs(self) -> tuple[range, ...]:
        """Micro-batches that go through a stage one after the other, as equally long as possible.

        At most N long, unless that would leave runs shorter than min(N, PP), where the pipeline waits for itself:
        10 micro-batches at N = PP = 4 are two runs of 5.
        """
        wanted = self.consecutive or self.pp
        count = -(-self.microbatches // wanted)
        if self.microbatches // count < min(wanted, self.pp):
            count = max(1, self.microbatches // wanted)
        length, longer = divmod(self.microbatches, count)
        starts = [number * length + min(number, longer) for number in range(count + 1)]
        return tuple(range(start, stop) for start, stop in pairwise(starts))

    def warm_up(self, rank: int) -> int:
        """Forwards of a rank before its first pair of one forward and one backward.

        Interleaved, the last rank needs a run through all its stages but one; each rank before it two forwards more,
        one for the way there and one for the way back. Several runs shorter than PP - 1 would wait for one another
        for ever at that distance, so it shrinks with them.
        """
        behind = self.pp - 1 - rank
        if self.virtual == 1:
            return min(behind, self.microbatches)
        lengths = [len(run) for run in self.runs]
        ahead = 2 * behind
        if len(lengths) > 1 and min(lengths) < self.pp - 1:
            ahead = 2 * behind * min(lengths) // (self.pp - 1)
        return min((self.virtual - 1) * max(lengths) + ahead, self.virtual * self.microbatches)

    def in_flight(self, rank: int) -> int:
        """The most micro-batches, counted once in each stage, whose activations a rank holds at one time."""
        return min(self.warm_up(rank) + 1, self.virtual * self.microbatches)

    @property
    def bubble(self) -> float:
        """Time at rest over time at work, were all stages alike and no run shorter than PP (paper, section 3.3.2)."""
        return (self.pp - 1) / (self.virtual * self.microbatches)

    def forwards(self, rank: int) -> list[Action]:
        """All forwards of a rank: its order when there is nothing to learn."""
        return [Action("forward", s, m) for run in self.runs for s in self.stages_of(rank) for m in run]

    def backwards(self, rank: int) -> list[Action]:
        return [Action("backward", s, m) for run in self.runs for s in reversed(self.stages_of(rank)) for m in run]

    def actions(self, rank: int) -> list[Action]:
        """What a rank does in one step, in order."""
        forwards, backwards, first = self.forwards(rank), self.backwards(rank), self.warm_up(rank)
        order = forwards[:first]
        for ahead, backward in zip(forwards[first:], backwards, strict=False):
            order += [ahead, backward]
        return order + backwards[len(forwards) - first :]

    def needs(self, action: Action) -> list[Action]:
        """What must have ended, anywhere, before an action can begin."""
        stage, microbatch = action.stage, action.microbatch
        if action.kind == "forward":
            return [Action("forward", stage - 1, microbatch)] if stage else []
        after = [Action("backward", stage + 1, microbatch)] if stage < self.stages - 1 else []
        return [Action("forward", stage, microbatch), *after]

    def receiver(self, action: Action) -> Action | None:
        """The action of another rank that waits for this one's result; None where there is none."""
        stage = action.stage + (1 if action.kind == "forward" else -1)
        if not 0 <= stage < self.stages or self.rank_of(stage) == self.rank_of(action.stage):
            return None
        return Action(action.kind, stage, action.microbatch)


def balanced(n_layers: int, pp: int, virtual: int = 1, given: Sequence[int] = ()) -> tuple[int, ...]:
    """Layers of each stage: what the user gives, or even, with one fewer on the first and the last stage.

    Those hold the embedding and the output matrix, which the paper counts as a layer each: the 126 layers of 405B on
    16 ranks of 8 stages are none, 126 times one, none. What does not divide goes to inner stages, the later the
    better: earlier ranks hold more activations.
    """
    stages = pp * virtual
    if given:
        if len(given) != stages or sum(given) != n_layers or min(given) < 0:
            raise SettingError(
                f"{tuple(given)} has {len(given)} stages and {sum(given)} layers; {stages} stages share {n_layers}",
                where="layers",
                mend="give as many numbers as pp * virtual, which sum to the layers of the model",
            )
        return tuple(given)
    if stages == 1:
        return (n_layers,)
    even, left = divmod(n_layers + 2, stages)
    if not even:
        raise SettingError(
            f"{n_layers} layers, the embedding and the output cannot fill {stages} stages",
            where="pp",
            mend=f"choose pp * virtual of at most {n_layers + 2}",
        )
    layers = [even] * stages
    layers[0], layers[-1] = even - 1, even - 1
    for stage in [*range(stages - 2, 0, -1), 0][:left]:
        layers[stage] += 1
    return tuple(layers)
