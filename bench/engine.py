"""The engine on the 1B shape beside llama.cpp, vLLM on the CPU and compiled transformers: `python -m bench engine`.

Random weights, two threads each, token ids in and out. Every program is a process of its own with its model open, and
asleep while another runs; each of `PAIRS` rounds runs herd, the limit and every peer once, and the ratios are medians
of the rounds' own. A row names the best of its peers; figures of all are told on standard error.

decode-bf16, decode-fp8: tokens/s of one sequence after a prompt of 128. The limit is plain reading of the weights that
a token takes. "decode-fp8-gain" has our own BF16 in the peer's place.
prefill-bf16, prefill-fp8: prompt tokens/s of 512 until the first token. The limit is the rate of a square BF16 product.
throughput-8, throughput-32: tokens/s of all sequences together while all of them run, after prompts of 64.
sharing: tokens/s of 16 candidates of a prompt of 512, its computation included, against pages of their own.
server: tokens/s of 16 streams through HTTP against the same 16 on the engine alone, prompts included. "server-steady"
is the median time between tokens over the 99th percentile while all streams run (over 0.5 is the aim), "server-prefix"
the first tokens a second of a prompt whose first 2,000 tokens are known against those of an unknown one.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from bench import engine_server
from bench.engine_programs import COMPILED, CPP, CPP_Q8, HERD, HERD_FP8, PREFILL, VLLM, Sides, sides
from bench.engine_side import Pace, Side
from bench.harness import Row, make_row, seconds
from bench.load import SHAPE_1B, weight_bytes

PAIRS = 5
PROMPT, DECODED = 128, 33
BATCH_PROMPT, BATCH_DECODED = 64, 25
CANDIDATES, CANDIDATE_TOKENS = 16, 64
STREAMS, STREAM_TOKENS, PREFIX = 16, 48, 2000
Prompts = list[list[int]]


class _Prompts:
    """Random prompts, never the same twice: nobody's cache of beginnings helps."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, count: int, length: int) -> Prompts:
        found: Prompts = torch.randint(1, 128_000, (count, length), generator=self._generator).tolist()
        return found


_prompts = _Prompts()


def reading(n_bytes: int) -> float:
    """GB/s of plain reading over about a second."""
    block = torch.ones(2**29 // 8, dtype=torch.int64)
    block.sum()
    times = max(4, n_bytes // block.nbytes)
    return times * block.nbytes / seconds(lambda: [block.sum() for _ in range(times)]) / 1e9


def products() -> float:
    """FLOP/s of a square BF16 product, over about half a second."""
    a, b, c = (torch.randn(2048, 2048).bfloat16() for _ in range(3))
    torch.mm(a, b, out=c)
    # Into the same memory every time: fresh results would time the kernel's handing out of pages, a third of it.
    return 40 * 2 * 2048**3 / seconds(lambda: [torch.mm(a, b, out=c) for _ in range(40)])


def prefill_flops(length: int) -> float:
    """Of a prompt until its first token: layers, causal attention, the output matrix for the last position alone."""
    shape = SHAPE_1B
    matrices = shape.parameters() - shape.vocab_size * shape.dim - (2 * shape.n_layers + 1) * shape.dim
    attention = 2 * length * shape.dim * shape.n_layers  # scores and mixing, half of the square
    return length * (2 * matrices + attention) + 2 * shape.vocab_size * shape.dim


def compare(
    row: str,
    ours: Callable[[], float],
    peers: dict[str, Callable[[], float]],
    limit: Callable[[], float] | None,
) -> Row:
    """One row of rates; runs alternate, the first round is thrown away. The best peer stands in the row."""
    found: dict[str, list[float]] = {name: [] for name in ("", "limit", *peers)}
    for _ in range(PAIRS + 1):
        found[""].append(ours())
        if limit is not None:
            found["limit"].append(limit())
        for name, peer in peers.items():
            found[name].append(peer())
    rates = {name: some[1:] for name, some in found.items()}
    best = max(peers, key=lambda name: statistics.median(rates[name]), default="")
    for name in peers:
        ratio = statistics.median(a / b for a, b in zip(rates[""], rates[name], strict=True))
        print(f"# {row}: {ratio:.3f} of {name} ({statistics.median(rates[name]):.1f})", file=sys.stderr, flush=True)
    return make_row(row, "tokens/s", rates[""], rates[best] if best else [], best or "none", rates["limit"] or None)


def against(sides: Sides, names: Sequence[str], rate: Callable[[Side], float]) -> dict[str, Callable[[], float]]:
    """The peers that are installed, by name."""
    there = {name: sides.get(name) for name in names}
    return {name: partial(rate, side) for name, side in there.items() if side is not None}


def ours(sides: Sides, name: str) -> Side:
    side = sides.get(name)
    assert side is not None
    return side


def decode_rate(side: Side) -> float:
    return side.run(_prompts(1, PROMPT), DECODED).rate


def batch_rate(side: Side, count: int) -> float:
    return side.run(_prompts(count, BATCH_PROMPT), BATCH_DECODED).rate


def prefill_rate(side: Side) -> float:
    return PREFILL / side.run(_prompts(1, PREFILL), 1).first


def bench_decode(sides: Sides, row: str, name: str, folder: Path, peers: Sequence[str]) -> Row:
    size = weight_bytes(folder)
    return compare(
        row,
        partial(decode_rate, ours(sides, name)),
        against(sides, peers, decode_rate),
        lambda: reading(2**34) * 1e9 / size,
    )


def bench_prefill(sides: Sides, row: str, name: str, peers: Sequence[str]) -> Row:
    each = prefill_flops(PREFILL) / PREFILL
    return compare(
        row,
        partial(prefill_rate, ours(sides, name)),
        against(sides, peers, prefill_rate),
        lambda: products() / each,
    )


def bench_throughput(sides: Sides, count: int) -> Row:
    rate = partial(batch_rate, count=count)
    return compare(f"throughput-{count}", partial(rate, ours(sides, HERD)), against(sides, (CPP, VLLM), rate), None)


def bench_sharing(sides: Sides) -> Row:
    def rate(share: bool) -> float:
        prompt = _prompts(1, PREFILL)
        pace: Pace = ours(sides, HERD).run(prompt * CANDIDATES, CANDIDATE_TOKENS, share=share)
        return CANDIDATES * CANDIDATE_TOKENS / pace.whole

    return compare("sharing", partial(rate, True), {"without sharing": partial(rate, False)}, None)


def bench_server(sides: Sides) -> list[Row]:
    return asyncio.run(_bench_server(sides))


async def _bench_server(sides: Sides) -> list[Row]:
    through: list[float] = []
    alone: list[float] = []
    known: list[float] = []
    unknown: list[float] = []
    steady: list[float] = []
    async with engine_server.Server(sides.models.chatty, torch.get_num_threads()) as server:
        for _ in range(PAIRS + 1):
            heard = await server.streams(_prompts(STREAMS, BATCH_PROMPT), STREAM_TOKENS)
            through.append(engine_server.rate(heard))
            between = sorted(engine_server.gaps(heard))
            steady.append(statistics.median(between) / between[int(0.99 * len(between))])
            pace = ours(sides, HERD).run(_prompts(STREAMS, BATCH_PROMPT), STREAM_TOKENS)
            alone.append(STREAMS * STREAM_TOKENS / pace.whole)
            (prefix,) = _prompts(1, PREFIX)
            for found in (unknown, known):
                (one,) = await server.streams([prefix + _prompts(1, 16)[0]], 2)
                found.append(1 / one.times[0])
    name = "the engine alone"
    return [
        make_row("server", "tokens/s", through[1:], alone[1:], name, None),
        make_row("server-steady", "median/p99", steady[1:], [], "none", None),
        make_row("server-prefix", "first tokens/s", known[1:], unknown[1:], "an unknown prompt", None),
    ]


_ROWS: dict[str, tuple[str, Callable[[Sides], list[Row]]]] = {
    "decode-bf16": (
        "tokens/s of one sequence",
        lambda sides: [bench_decode(sides, "decode-bf16", HERD, sides.models.bf16, (CPP, VLLM))],
    ),
    "decode-fp8": (
        "the same with every matrix in FP8, against llama.cpp's Q8_0 and our BF16",
        lambda sides: [
            bench_decode(sides, "decode-fp8", HERD_FP8, sides.models.fp8, (CPP_Q8,)),
            bench_decode(sides, "decode-fp8-gain", HERD_FP8, sides.models.fp8, (HERD,)),
        ],
    ),
    "prefill-bf16": (
        "prompt tokens/s of 512 until the first token",
        lambda sides: [bench_prefill(sides, "prefill-bf16", HERD, (CPP, VLLM, COMPILED))],
    ),
    "prefill-fp8": (
        "the same with every matrix in FP8, against our BF16",
        lambda sides: [bench_prefill(sides, "prefill-fp8", HERD_FP8, (HERD,))],
    ),
    "throughput-8": ("tokens/s of 8 sequences", lambda sides: [bench_throughput(sides, 8)]),
    "throughput-32": ("tokens/s of 32 sequences", lambda sides: [bench_throughput(sides, 32)]),
    "sharing": ("tokens/s of 16 candidates of a prompt of 512", lambda sides: [bench_sharing(sides)]),
    "server": ("tokens/s of 16 streams through HTTP, against the engine alone", bench_server),
}


def run(names: Sequence[str]) -> list[Row]:
    with sides() as there:
        return [row for name in names for row in _ROWS[name][1](there)]


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "engine": ("the engine on the 1B shape: all rows that follow", partial(run, list(_ROWS))),
    **{name: (f"1B shape: {about}", partial(run, [name])) for name, (about, _) in _ROWS.items()},
}
