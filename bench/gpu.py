"""On a CUDA device: training tokens per second of a 1B shape in bfloat16 (`bench.training`), and the kernels
(`bench.gpu_kernels`).

What is reached of the limit, the measured rate of products over the FLOPs of a token, is the utilisation (MFU).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import torch

from bench.gpu_kernels import kernel_rows
from bench.harness import Row
from bench.training import bench_training
from herd.llama.config import LlamaConfig

# The released 1B of Llama 3.2, with the rotation of 3.1: its parameters and FLOPs are the same.
SHAPE_1B = LlamaConfig(
    vocab_size=128_256, dim=2048, n_layers=16, n_heads=32, n_kv_heads=8, ffn_dim=8192, tie_embeddings=True
)


def rows() -> list[Row]:
    if not torch.cuda.is_available():
        print("gpu: torch finds no CUDA device, nothing is measured", file=sys.stderr)
        return []
    device = torch.device("cuda", 0)
    row = bench_training("gpu-train-1b-bfloat16", SHAPE_1B, "bfloat16", batch=4, length=2048, pairs=10, device=device)
    return [replace(row, machine=torch.cuda.get_device_name(device)), *kernel_rows(device)]


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "gpu": ("training of a 1B shape, FP8 products and attention on a CUDA device; nothing without one", rows)
}
