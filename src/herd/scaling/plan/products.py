"""How long a matrix product takes on a GPU, and which products a layer has."""

from __future__ import annotations

import math

from herd.llama.config import LlamaConfig
from herd.scaling.plan.efficiency import FP8_SHARE, LAUNCH_SECONDS, MATRIX_SHARE, MEMORY_SHARE, RAMP, TILE
from herd.scaling.plan.hardware import Gpu
from herd.scaling.plan.measured import rate_at


def product_seconds(gpu: Gpu, m: float, k: float, n: float, fp8: bool = False, cut: bool = False) -> float:
    """Of [m, k] by [k, n]; `cut`: of a tensor rank, which on a measured machine has another kernel."""
    flops = 2.0 * m * k * n
    if gpu.measured:
        known = gpu.measured.cut_products if cut else gpu.measured.products
        return flops / rate_at(known, (m * k * n) ** (1 / 3))
    rate = gpu.clock * (FP8_SHARE * gpu.fp8_flops if fp8 else MATRIX_SHARE * gpu.bf16_flops)
    ramp = RAMP * (gpu.fp8_flops / gpu.bf16_flops if fp8 else 1.0)
    tiles = math.ceil(m / TILE[0]) * math.ceil(n / TILE[1])
    full = tiles / (math.ceil(tiles / gpu.sms) * gpu.sms) if gpu.sms else 1.0
    reading = (m * k + k * n) * (1 if fp8 else 2) + 2 * m * n
    return max(flops / (rate * full * k / (k + ramp)), reading / (gpu.memory_rate * MEMORY_SHARE), LAUNCH_SECONDS)


def kv_width(config: LlamaConfig, tp: int) -> float:
    """Width of the keys on a tensor rank; heads are never cut."""
    return max(config.kv_dim / tp, config.head_dim)


def layer_products(config: LlamaConfig, tp: int) -> tuple[tuple[float, float], ...]:
    """(k, n) of a layer's products on a tensor rank, in their order: q with k and v, o, gate with up, down."""
    return (
        (config.dim, config.dim / tp + 2 * kv_width(config, tp)),
        (config.dim / tp, config.dim),
        (config.dim, 2 * config.ffn_dim / tp),
        (config.ffn_dim / tp, config.dim),
    )
