"""What `herd plan --measure` finds out about a machine of processors: rates, and what software costs on it.

A datasheet gives a peak of which a share is reached; here everything is what was reached, in float32, by processes of
one thread that all work at the same time. What a layer costs however small it is (Python, autograd, waking up for a
collective) is taken from the trainer itself, on a model of no width (`commands/plan_tiny.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from herd.train.parallel.plan import ParallelPlan


@dataclass(frozen=True)
class Point:
    """FLOP/s at a size: of products by the geometric mean of their sides, of attention by the tokens of a row."""

    size: float
    rate: float


@dataclass(frozen=True)
class Attention:
    """FLOP/s of attention, causal, by the tokens of a row."""

    forward: tuple[Point, ...]
    backward: tuple[Point, ...]


@dataclass(frozen=True)
class Overhead:
    """Seconds of a step, of each of its micro-batches, and of each layer of these, beside all that is counted."""

    step: float = 0.0
    microbatch: float = 0.0
    layer: float = 0.0

    def plus(self, other: Overhead, less: Overhead) -> Overhead:
        return Overhead(
            self.step + max(0.0, other.step - less.step),
            self.microbatch + max(0.0, other.microbatch - less.microbatch),
            self.layer + max(0.0, other.layer - less.layer),
        )


@dataclass(frozen=True)
class Measured:
    """Beside what every `Gpu` has, whose memory_rate is here that of the passes between products (layer.py)."""

    products: tuple[Point, ...]
    cut_products: tuple[Point, ...]  # of tensor ranks: torch's
    attention: Attention
    gathered_attention: Attention  # of context ranks, whose queries are not in one piece
    stream_rate: float  # bytes/s read and written by sums and copies
    logits_rate: float  # a second, through the loss and its gradient, without products
    cut_logits_rate: float  # of tensor ranks
    update_rate: float  # parameters a second: norm, mean, AdamW
    reduce_rate: float  # bytes/s past a rank of a reduce-scatter; `Gpu.link_rate` is that of a gather
    overhead: Mapping[str, Overhead]  # "plain", and of several processes "keep", "reshard", "tp", "cp", "pp"

    def overhead_of(self, plan: ParallelPlan) -> Overhead:
        """What each axis adds to a plain process is added up."""
        plain = self.overhead.get("plain", Overhead())
        found = plain
        sharded = plan.shard if plan.shard != "none" and plan.shards > 1 else ""
        for name in (sharded, *(axis for axis in ("tp", "cp", "pp") if getattr(plan, axis) > 1)):
            if name in self.overhead:
                found = found.plus(self.overhead[name], plain)
        return found


def rate_at(points: Sequence[Point], size: float) -> float:
    """Between measured sizes, in proportion to the logarithm of the size; beyond them, that of the last."""
    known = sorted(points, key=lambda point: point.size)
    if size >= known[-1].size:
        return known[-1].rate
    if size <= known[0].size:
        return known[0].rate
    after = next(index for index, point in enumerate(known) if point.size > size)
    low, high = known[after - 1], known[after]
    share = math.log(size / low.size) / math.log(high.size / low.size)
    return low.rate + share * (high.rate - low.rate)
