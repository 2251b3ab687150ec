"""Training speeds that others measured and published, as jobs of the planner: what it is checked with.

Nothing here changes a constant of the simulation. Where a page leaves something open, `assumed` says what was taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from herd.llama.config import LlamaConfig, llama31_8b, llama31_70b, llama31_405b
from herd.scaling.plan.hardware import GPUS
from herd.scaling.plan.job import Job, Software, Way
from herd.scaling.plan.network import NETWORKS
from herd.scaling.plan.step import Step
from herd.train.parallel.plan import ParallelPlan


@dataclass(frozen=True)
class Row:
    """`value` is MFU (of the paper) or tokens a second and GPU (of torchtitan)."""

    name: str
    job: Job
    way: Way
    value: float
    unit: str  # "MFU" or "tokens/s/GPU"
    source: str
    assumed: str = ""

    def of(self, step: Step) -> float:
        """What a simulated step says, in this row's unit."""
        return step.mfu if self.unit == "MFU" else step.tokens_per_second


_PLAIN = Software()
_PAPER = "Llama 3 paper, table 4"
_TITAN = "torchtitan, benchmarks/llama3_h100_202412_torchtitan.md"
_ASYNC = "torchtitan, benchmarks/asyncTP_llama3_h100_2025-06_torchtitan.md"
_TRAINY = "torchtitan, benchmarks/llama3-8b_h200_202506_trainy-whitefiber.md"


def _paper(gpus: int, cp: int, dp: int, rows: int, seq: int, mfu: float) -> Row:
    plan = ParallelPlan(pp=16, dp=dp, cp=cp, tp=8, virtual=8, compile=True, recompute="elementwise")
    job = Job(llama31_405b(), gpus, GPUS["h100"], NETWORKS["roce"], seq, dp * rows * seq)
    open_ = "8 stages a rank (126 layers and two ends are 16 x 8); attention by FA3; one sequence a micro-batch"
    return Row(f"405B, {gpus:,} GPUs, {seq:,} tokens", job, Way(plan), mfu, "MFU", _PAPER, open_)


def _titan(
    name: str,
    config: Callable[[], LlamaConfig],
    plan: ParallelPlan,
    batch: int,
    value: float,
    *,
    seq: int = 8192,
    rows: int = 0,
    gpu: str = "h100-96gb-500w",
    source: str = _TITAN,
    software: Software = _PLAIN,
    assumed: str = "",
) -> Row:
    """`batch`: sequences a data-parallel rank and step; `rows`: of a micro-batch, 0: all of them."""
    software = replace(software, attention="fa2")  # what torch 2.6 to 2.8 had built in
    network = NETWORKS["infiniband" if gpu == "h200" else "roce"]
    job = Job(config(), plan.world_size, GPUS[gpu], network, seq, plan.dp * batch * seq, software=software)
    return Row(name, job, Way(plan, rows or batch), value, "tokens/s/GPU", source, assumed)


def _small() -> list[Row]:
    found = []
    selective = Software(selective=True)
    for gpus, values in ((8, (5762, 6667, 8532)), (128, (5605, 6514, 8380))):
        plain = ParallelPlan(dp=gpus, shard="reshard")
        compiled = replace(plain, compile=True)
        fp8 = replace(compiled, precision="fp8")
        name = f"8B, {gpus} GPUs"
        found += [
            _titan(f"{name}, eager", llama31_8b, plain, 2, values[0], software=selective),
            _titan(f"{name}, compiled", llama31_8b, compiled, 2, values[1], software=selective),
            _titan(f"{name}, compiled, FP8", llama31_8b, fp8, 2, values[2], software=selective),
        ]
    for gpus, value in ((32, 10938), (64, 10753)):
        plan = ParallelPlan(dp=gpus, shard="reshard", compile=True, precision="fp8")
        software = Software(selective=True, fp8_gather=True)
        name = f"8B, {gpus} H200, compiled, FP8"
        found.append(_titan(name, llama31_8b, plan, 2, value, gpu="h200", source=_TRAINY, software=software))
    return found


def _large() -> list[Row]:
    wide = ParallelPlan(dp=32, tp=8, shard="reshard", recompute="layer", compile=True)
    narrow = replace(wide, precision="fp8")
    hidden = Software(async_tp=True)
    found = [
        _titan("70B, 256 GPUs, FP8", llama31_70b, narrow, 16, 829),
        _titan("70B, 256 GPUs, FP8, async TP", llama31_70b, narrow, 16, 876, software=hidden),
        _titan("70B, 256 GPUs, BF16, 2025", llama31_70b, wide, 16, 597, source=_ASYNC),
        _titan("70B, 256 GPUs, BF16, async TP, 2025", llama31_70b, wide, 16, 652, source=_ASYNC, software=hidden),
        _titan("70B, 256 GPUs, FP8, 2025", llama31_70b, narrow, 16, 810, source=_ASYNC),
        _titan("70B, 256 GPUs, FP8, async TP, 2025", llama31_70b, narrow, 16, 942, source=_ASYNC, software=hidden),
    ]
    staged = ParallelPlan(pp=8, dp=8, tp=8, shard="keep", recompute="layer", compile=True, precision="fp8")
    split = "8 micro-batches: as many as pipeline ranks, torchtitan's default of that date"
    twice = replace(staged, virtual=2)
    found += [
        _titan("405B, 512 GPUs, FP8, 1F1B", llama31_405b, staged, 32, 100, rows=4, software=hidden, assumed=split),
        _titan(
            "405B, 512 GPUs, FP8, interleaved", llama31_405b, twice, 32, 128, rows=4, software=hidden,
            assumed=split + "; two stages a rank, the least that is interleaved",
        ),
    ]  # fmt: skip
    return found


def _long() -> list[Row]:
    """Context ranks: 32,768 tokens on each, and as many data ranks fewer."""
    staged = ParallelPlan(pp=8, tp=8, shard="keep", recompute="layer", compile=True, precision="fp8")
    small = ParallelPlan(shard="reshard", recompute="layer", compile=True, precision="fp8")
    split = "8 micro-batches, as many as pipeline ranks; waiting for what context ranks send (context.py)"
    found = []
    for cp, large, little in ((1, 76, 3890), (2, 47, 2540), (4, 31, 1071), (8, 16, 548)):
        seq = 32_768 * cp
        for name, config, plan, batch, value in (
            ("405B, 512 GPUs", llama31_405b, replace(staged, cp=cp, dp=8 // cp), 8, large),
            ("8B, 8 GPUs", llama31_8b, replace(small, cp=cp, dp=8 // cp), 1, little),
        ):
            shape = partial(_of_length, config, seq)
            software = Software(async_tp=plan.tp > 1, ring=True)
            name = f"{name}, FP8, {seq:,} tokens"
            found.append(_titan(name, shape, plan, batch, value, seq=seq, rows=1, software=software, assumed=split))
    return found


def _of_length(config: Callable[[], LlamaConfig], seq: int) -> LlamaConfig:
    """torchtitan gives its model any length of row."""
    return replace(config(), max_seq_len=max(seq, config().max_seq_len))


def rows() -> list[Row]:
    return [
        _paper(8_192, 1, 64, 32, 8_192, 0.43),
        _paper(16_384, 1, 128, 16, 8_192, 0.41),
        _paper(16_384, 16, 8, 16, 131_072, 0.38),
        *_small(),
        *_large(),
        *_long(),
    ]
