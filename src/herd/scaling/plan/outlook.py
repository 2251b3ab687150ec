"""A whole run from one step: days, energy, money, checkpoints, interruptions."""

from __future__ import annotations

from dataclasses import dataclass

from herd.scaling.plan.failures import DAY, HOUR, Habits, Survival, survive
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.step import Step

# Masters and both moments, fp32; the BF16 copies are made again from the masters.
CHECKPOINT_BYTES = 12
# What a data centre draws over what its computers draw: about Meta's published average, from memory.
PUE = 1.09
_LEAST = 0.01  # effective training time below which no run is worth the exact number of its days


@dataclass(frozen=True)
class Checkpoint:
    bytes: float
    bytes_per_gpu: float
    write_seconds: float  # beside training, at the storage's rate
    pause_seconds: float  # of training: the copy to the host's memory


@dataclass(frozen=True)
class Outlook:
    steps: int
    ideal_days: float  # nothing ever breaks
    days: float
    gpu_hours: float
    gpu_mwh: float  # the GPUs at their power limit
    site_mwh: float  # whole nodes at most, and what cools them
    dollars: float
    checkpoint: Checkpoint
    survival: Survival
    effective_mfu: float  # over all days


def checkpoint(job: Job, way: Way) -> Checkpoint:
    """Every rank of one replica's shards writes its own; where nothing is sharded, one replica does."""
    size = CHECKPOINT_BYTES * job.config.parameters()
    writers = way.plan.tp * way.plan.pp * way.plan.shards
    each = size / writers
    return Checkpoint(
        size, each, size / min(job.network.storage_rate, writers * job.gpu.host_rate), each / job.gpu.host_rate
    )


def outlook(
    job: Job,
    way: Way,
    step: Step,
    habits: Habits | None = None,
    seed: int = 0,
    dollars: float = 0.0,
    scale: float = 1.0,
) -> Outlook:
    """`habits` None: the defaults, with this checkpoint's pause. `dollars`: a GPU and hour; 0: the GPU's usual."""
    written = checkpoint(job, way)
    if habits is None:
        # A step may be under way when the copy begins: what is not hidden is the copy and the ranks' agreement on it.
        habits = Habits(pause=max(1.0, written.pause_seconds), read=max(30.0, written.write_seconds))
    ideal = job.steps * step.seconds / DAY
    days, survival = ideal, survive(habits, job.gpus, max(ideal, 1.0), seed, scale=scale)
    for _ in range(3):  # a longer run meets more, which makes it longer
        days = ideal / max(survival.effective, _LEAST)
        survival = survive(habits, job.gpus, max(days, 0.01), seed, scale=scale)
    hours = days * DAY / HOUR * job.gpus
    node = job.gpu.node_watts - job.gpu.node * (job.gpu.tdp - job.gpu.watts)
    return Outlook(
        steps=job.steps,
        ideal_days=ideal,
        days=days,
        gpu_hours=hours,
        gpu_mwh=hours * job.gpu.watts / 1e6,
        site_mwh=hours * node / job.gpu.node * PUE / 1e6,
        dollars=hours * (dollars or job.gpu.dollars),
        checkpoint=written,
        survival=survival,
        effective_mfu=step.mfu * ideal / days if days else step.mfu,
    )
