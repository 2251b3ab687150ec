"""What a GPU can do, by its datasheet; what of it is reached is in `efficiency.py`.

    gpu = find_gpu("h100");  gpu.capped(500)        # the same under a power limit
    find_gpu("machine.json")                        # what `herd plan --measure` wrote, or what you write

Rates are dense (NVIDIA prints them with sparsity, twice as high). Bytes are bytes, seconds are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from herd.config import load, need, unknown
from herd.devices import GIB
from herd.errors import SettingError
from herd.scaling.plan.efficiency import STANDING_POWER
from herd.scaling.plan.measured import Measured


@dataclass(frozen=True)
class Gpu:
    """One device and its share of the node around it."""

    name: str
    memory_bytes: int
    bf16_flops: float
    fp8_flops: float  # 0: it has none
    memory_rate: float  # bytes/s
    link_rate: float  # bytes/s one way to the other GPUs of its node, all links together
    node: int  # GPUs that these links join
    sms: int  # what a product's tiles are dealt to; 0: do not count tiles
    watts: float  # the power limit
    tdp: float  # the limit that the rates above are meant for
    node_watts: float  # of a whole node at most, its GPUs at their `tdp`
    attention: Mapping[str, tuple[float, float]]  # kernel -> FLOP/s forward and backward (causal, head size 128)
    dollars: float  # an hour
    measured: Measured | None = None  # then rates are those that were reached: no share is taken of them
    host_rate: float = 50e9  # bytes/s to the host's memory: PCIe 5 x16 carries 63 GB/s each way
    sources: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name in ("memory_bytes", "bf16_flops", "memory_rate", "link_rate", "node", "watts", "tdp", "node_watts"):
            need(self, name, getattr(self, name) > 0, "more than 0")
        need(self, "attention", bool(self.attention), "a mapping of kernels to rates")

    @property
    def clock(self) -> float:
        """The part of its clock that a power limit leaves.

        What power is not drawn at any clock goes with clock x voltage^2, and voltage goes with the clock.
        """
        standing = STANDING_POWER * self.tdp
        return float(min(1.0, ((self.watts - standing) / (self.tdp - standing)) ** (1 / 3)))

    def capped(self, watts: float) -> Gpu:
        if not 0.3 * self.tdp <= watts <= self.tdp:
            raise SettingError(
                f"{watts:g} W is no power limit of a {self.name} of {self.tdp:g} W",
                where="watts",
                mend=f"give between {0.3 * self.tdp:g} and {self.tdp:g}",
            )
        return replace(self, watts=watts)

    @property
    def best_attention(self) -> str:
        return max(self.attention, key=lambda name: self.attention[name])


# FlashAttention on an H100, causal, head size 128, 8k to 16k tokens: 370 (FA2), 595 (cuDNN) and 648 (FA3) TFLOP/s
# forward, figure 5 of the FA3 paper (arXiv 2407.08608); backward from memory of its figure 6: about 330, 500, 560.
_HOPPER = {"fa2": (370e12, 330e12), "cudnn": (595e12, 500e12), "fa3": (648e12, 560e12)}

GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            "a100", 80 * GIB, 312e12, 0.0, 2.039e12, 300e9, 8, 108, 400, 400, 6_500,
            {"fa2": (203e12, 175e12)}, 1.5,
            sources="A100 80GB SXM datasheet; DGX A100 datasheet (6.5 kW); FA2 paper (arXiv 2307.08691), from memory; "
            "price: herd's choice",
        ),
        Gpu(
            "h100", 80 * GIB, 989e12, 1979e12, 3.35e12, 450e9, 8, 132, 700, 700, 10_200,
            _HOPPER, 2.5,
            sources="H100 SXM5 datasheet; DGX H100 datasheet (10.2 kW); FA3 paper; price: herd's choice",
        ),
        Gpu(
            "h100-96gb-500w", 96 * 10**9, 989e12, 1979e12, 2.4e12, 450e9, 8, 132, 500, 700, 10_200,
            _HOPPER, 2.5,
            sources="Grand Teton with HBM2e, 500 W: torchtitan's benchmarks/llama3_h100_202412_torchtitan.md; "
            "the rest as h100",
        ),
        Gpu(
            "h200", 141 * 10**9, 989e12, 1979e12, 4.8e12, 450e9, 8, 132, 700, 700, 10_200,
            _HOPPER, 3.0,
            sources="H200 SXM datasheet; the rest as h100",
        ),
        Gpu(
            "b200", 180 * 10**9, 2250e12, 4500e12, 7.7e12, 900e9, 8, 148, 1000, 1000, 14_300,
            {"fa3": (1100e12, 900e12)}, 4.5,
            sources="HGX B200 and DGX B200 (14.3 kW) datasheets; attention: half of the peak, herd's choice; "
            "price: herd's choice",
        ),
    )
}  # fmt: skip


def find_gpu(name: str) -> Gpu:
    """By its name, or from a file of these fields."""
    if name in GPUS:
        return GPUS[name]
    if name.endswith(".json"):
        return load(Path(name), Gpu)
    if name == "cpu":
        raise SettingError(
            "this machine's rates are not known before they are measured",
            where="gpu",
            mend="run `herd plan --measure machine.json`, then give --gpu machine.json",
        )
    raise unknown(name, GPUS, "a GPU that the planner knows, nor a .json file that describes one")
