"""Training tokens per second of a small shape on the CPU, float32 and bfloat16 (`bench.training`)."""

from __future__ import annotations

from collections.abc import Callable

from bench.harness import Row
from bench.training import bench_training
from herd.llama.config import LlamaConfig

SHAPE = LlamaConfig(vocab_size=4096, dim=256, n_layers=6, n_heads=8, n_kv_heads=4, ffn_dim=768)


def rows() -> list[Row]:
    return [
        bench_training(f"train-{dtype}", SHAPE, dtype, batch=8, length=512, pairs=7)
        for dtype in ("float32", "bfloat16")
    ]


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {"train": ("training tokens/s, float32 and bfloat16", rows)}
