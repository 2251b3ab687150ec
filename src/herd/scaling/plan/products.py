"""How long a matrix product takes on a GPU, and which products a layer has."""

from __future__ import annotations

import math

from herd.llama.config import LlamaConfig
from herd.scaling.plan.efficiency import FP8_SHARE, LAUNCH_SECONDS, MATRIX_SHARE, MEMORY_SHARE, RAMP, TILE
from herd.scaling.plan.hardware import Gpu


def product_seconds(gpu: Gpu, m: float, k: float, n: float, fp8: bool = False) -> float:
    """Of [m, k] by [k, n]."""
    flops = 2.0 * m * k * n
    if gpu.measured:
        return flops / measured_rate(gpu, (m * k * n) ** (1 / 3)) + gpu.launch_seconds
    rate = gpu.clock * (FP8_SHARE * gpu.fp8_flops if fp8 else MATRIX_SHARE * gpu.bf16_flops)
    ramp = RAMP * (gpu.fp8_flops / gpu.bf16_flops if fp8 else 1.0)
    tiles = math.ceil(m / TILE[0]) * math.ceil(n / TILE[1])
    full = tiles / (math.ceil(tiles / gpu.sms) * gpu.sms) if gpu.sms else 1.0
    reading = (m * k + k * n) * (1 if fp8 else 2) + 2 * m * n
    return max(flops / (rate * full * k / (k + ramp)), reading / (gpu.memory_rate * MEMORY_SHARE), LAUNCH_SECONDS)


def measured_rate(gpu: Gpu, side: float) -> float:
    """Between the measured sizes, in proportion to the logarithm of the side."""
    points = sorted(gpu.curve, key=lambda point: point.side)
    if not points or side >= points[-1].side:
        return points[-1].flops if points else gpu.bf16_flops
    if side <= points[0].side:
        return points[0].flops
    after = next(index for index, point in enumerate(points) if point.side > side)
    low, high = points[after - 1], points[after]
    share = math.log(side / low.side) / math.log(high.side / low.side)
    return low.flops + share * (high.flops - low.flops)


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
