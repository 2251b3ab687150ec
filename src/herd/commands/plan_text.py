"""What `herd plan` says, as a table for people and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, TextIO

from herd.config import to_plain
from herd.devices import GIB
from herd.llama.config import LlamaConfig
from herd.report.plan import name_of
from herd.scaling.plan.failures import HOUR
from herd.scaling.plan.hardware import Gpu
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.memory import Memory
from herd.scaling.plan.outlook import Outlook
from herd.scaling.plan.published import rows
from herd.scaling.plan.search import Found
from herd.scaling.plan.serving import Held
from herd.scaling.plan.step import simulate

_AGAIN = {
    "nothing": "nothing recomputed",
    "elementwise": "no product recomputed",
    "mlp": "every mlp recomputed",
    "layer": "every layer recomputed",
}
_CAUSES = 3  # the most frequent ones are named


def as_plain(name: str, job: Job, found: Found, ahead: Outlook) -> dict[str, Any]:
    """For programs. Seconds, GiB, days, MWh and dollars; rates are of one GPU unless they say otherwise."""
    plan, step = found.way.plan, found.step
    return {
        "model": name,
        "parameters": job.config.parameters(),
        "gpus": job.gpus,
        "gpu": job.gpu.name,
        "network": job.network.name,
        "seq_len": job.seq_len,
        "batch_tokens": job.batch_tokens,
        "tokens": job.tokens,
        "layout": {**to_plain(plan), "rows": found.way.rows, "microbatches": step.microbatches},
        "plan": str(plan),
        "mfu": step.mfu,
        "step_seconds": step.seconds,
        "tokens_per_second_per_gpu": step.tokens_per_second,
        "parts": dict(step.parts),
        "bubble": step.bubble,
        "memory_gib": {**_gib(found.memory), "total": found.memory.total / GIB, "of": job.gpu.memory_bytes / GIB},
        "steps": ahead.steps,
        "days": ahead.days,
        "days_without_interruptions": ahead.ideal_days,
        "gpu_hours": ahead.gpu_hours,
        "energy_mwh": {"gpus": ahead.gpu_mwh, "site": ahead.site_mwh},
        "dollars": ahead.dollars,
        "checkpoint": asdict(ahead.checkpoint),
        "interruptions": asdict(ahead.survival),
        "effective_training_time": ahead.survival.effective,
        "layouts": {"tried": found.tried, "fitting": found.fitting},
        "others": [
            {"plan": str(way.plan), "rows": way.rows, "mfu": other.mfu, "memory_gib": held.total / GIB}
            for way, other, held in found.others
        ],
    }


def tell_plan(name: str, job: Job, found: Found, ahead: Outlook, out: TextIO) -> None:
    for line in _lines(name, job, found, ahead):
        out.write(line.rstrip() + "\n")


def _lines(name: str, job: Job, found: Found, ahead: Outlook) -> Iterator[str]:
    config = job.config
    yield f"{name}: {config.parameters():,} parameters, {config.n_layers} layers"
    yield (
        f"on {job.gpus:,} {job.gpu.name} ({job.gpu.watts:,.0f} W, {job.gpu.memory_bytes / GIB:.0f} GiB) over "
        f"{job.network.name}; steps of {job.rows:,} sequences of {job.seq_len:,} tokens ({_count(job.batch_tokens)})"
    )
    yield ""
    yield f"layout       {_layout(found.way, found.step.microbatches)}"
    yield f"             the fastest of {found.fitting:,} that fit into memory, of {found.tried:,} that are possible"
    yield ""
    yield from _step(job, found)
    yield ""
    yield from _memory(job, found.memory)
    yield ""
    yield from _run(job, ahead)
    if found.others:
        yield ""
        yield "next best    other axes"
        for way, step, held in found.others[:4]:
            yield f"  {step.seconds:8.2f} s   MFU {step.mfu:5.1%}   {held.total / GIB:5.1f} GiB   {way.plan}"


def _layout(way: Way, microbatches: int) -> str:
    plan = way.plan
    words = [f"tp={plan.tp} cp={plan.cp} pp={plan.pp} dp={plan.dp}"]
    if plan.pp > 1:
        words.append(f"{plan.virtual} stages a rank")
    words.append(
        f"{microbatches:,} micro-batch{'es' * (microbatches > 1)} of {way.rows} sequence{'s' * (way.rows > 1)}"
    )
    kept = {"keep": "parameters kept after forward", "reshard": "parameters gathered again", "none": "nothing sharded"}
    words.append(kept[plan.shard])
    words.append(_AGAIN[plan.recompute])
    return ", ".join([*words, *(["FP8"] if way.fp8 else [])])


def _step(job: Job, found: Found) -> Iterator[str]:
    step = found.step
    rate = f"{step.tokens_per_second:,.0f} tokens/s a GPU"
    peak = f"{job.gpu.bf16_flops / 1e12:,.4g} TFLOP/s"
    yield f"one step     {step.seconds:10.5g} s   MFU {step.mfu:.1%} of {peak}   {rate}"
    for part, seconds in step.parts.items():
        if seconds > 0.0005 * step.seconds:
            yield f"  {name_of(part):<22} {seconds:10.4g} s {seconds / step.seconds:7.1%}"


def _memory(job: Job, memory: Memory) -> Iterator[str]:
    whole = job.gpu.memory_bytes / GIB
    yield f"memory       {memory.total / GIB:8.1f} GiB of {whole:.1f} GiB, on the rank that holds most"
    for part, size in _gib(memory).items():
        yield f"  {part:<22} {size:10.2f} GiB"


def _run(job: Job, ahead: Outlook) -> Iterator[str]:
    survival, written = ahead.survival, ahead.checkpoint
    range_ = f"{survival.effective_low:.1%} to {survival.effective_high:.1%}"
    counts = f"{survival.unexpected_low:,} to {survival.unexpected_high:,}"
    causes = [cause for cause in survival.causes.items() if cause[0] != "planned"][:_CAUSES]
    ideal = f"{ahead.ideal_days:.1f} if nothing broke"
    yield f"{_count(job.tokens):<12} {ahead.days:8.1f} days, {ideal}; {ahead.steps:,} steps"
    yield f"  effective training     {survival.effective:10.1%}   nine of ten runs: {range_}"
    yield (
        f"  interruptions          {survival.unexpected:10,.0f}   unexpected ({counts}), one in "
        f"{survival.between / HOUR:,.1f} h; {survival.planned:,.0f} planned"
    )
    yield f"    most often           {', '.join(f'{cause} {count:,.0f}' for cause, count in causes)}"
    yield (
        f"  checkpoint             {written.bytes / 1e9:10,.1f} GB   {written.bytes_per_gpu / GIB:.2f} GiB a GPU, "
        f"every {survival.interval:,.0f} s: {written.pause_seconds:.2f} s to copy, {written.write_seconds:.1f} to write"
    )
    yield f"  GPU hours              {ahead.gpu_hours:10,.0f}"
    yield f"  energy                 {ahead.site_mwh:10,.1f} MWh of the site at most; of the GPUs {ahead.gpu_mwh:,.1f}"
    yield f"  cost                   {ahead.dollars:10,.0f} $"


def tell_serving(name: str, config: LlamaConfig, gpu: Gpu, context: int, held: list[Held], out: TextIO) -> None:
    out.write(f"{name} on {gpu.name} ({gpu.memory_bytes / GIB:.0f} GiB), sequences of {context:,} tokens\n")
    out.write(f"keys and values: {config.cache_bytes_per_token() * context / GIB:.2f} GiB a sequence in BF16\n\n")
    out.write(
        f"{'precision':<15}{'GPUs':>5}{'nodes':>6}{'layout':>11}{'weights':>12}{'room':>12}{'sequences':>10}"
        f"{'alone':>11}{'all':>13}  {'limited by':<16}{'prompts':>13}{'first':>9}\n"
    )
    for one in held:
        out.write(
            f"{one.precision:<15}{one.gpus:>5}{one.nodes:>6}{f'tp{one.tp} pp{one.pp}':>11}"
            f"{one.weight_bytes / GIB:>8.1f} GiB{one.cache_bytes / GIB:>8.1f} GiB{one.sequences:>10,}"
            f"{one.one:>7,.0f} t/s{one.many:>9,.0f} t/s  {one.bound:<16}{one.prompt:>9,.0f} t/s"
            f"{one.first_token:>7.2f} s\n"
        )
    out.write("\nlimits by memory, products and network: a server schedules, samples and waits besides\n")


def tell_published(out: TextIO) -> int:
    """Every row that others measured beside what the simulation says of it."""
    out.write(f"{'':<45}{'published':>10}{'here':>10}\n")
    for row in rows():
        step = simulate(row.job, row.way)
        here = row.of(step)
        shown = f"{row.value:>10.1%}{here:>10.1%}" if row.unit == "MFU" else f"{row.value:>10,.0f}{here:>10,.0f}"
        out.write(f"{row.name:<45}{shown}  {row.unit:<14}{here / row.value - 1:+7.1%}   {row.source}\n")
    return 0


def serving_as_plain(name: str, gpu: Gpu, context: int, held: list[Held]) -> dict[str, Any]:
    return {"model": name, "gpu": gpu.name, "context": context, "held": [asdict(one) for one in held]}


def _gib(memory: Memory) -> dict[str, float]:
    return {field.name: getattr(memory, field.name) / GIB for field in fields(memory)}


def _count(tokens: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if tokens >= size:
            return f"{tokens / size:.4g}{unit} tokens"
    return f"{tokens:,.0f} tokens"
