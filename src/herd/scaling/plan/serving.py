"""Which node holds which model, and how fast it answers at the limits of memory and products.

    for held in serving(config, gpu, network, context=8192): ...

A model is cut over the GPUs of a node by tensors, over nodes by layers (paper, section 6.1: 405B in BF16 on two nodes
of 8, TP 8 within and PP 2 across). A token of an answer reads all weights once for all sequences together, and each
sequence's own keys and values; a prompt's tokens share the reading and are bound by products. What is told are limits:
a real engine schedules, samples and waits besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from herd.devices import GIB
from herd.errors import SettingError
from herd.llama.config import LlamaConfig
from herd.quantize.settings import POLICIES
from herd.scaling.plan.efficiency import MEMORY_SHARE
from herd.scaling.plan.hardware import Gpu
from herd.scaling.plan.network import Fabric, Group, Network
from herd.scaling.plan.products import layer_products, product_seconds

Precision = Literal["bf16", "fp8", "fp8-all-linear"]
_USABLE = 0.92  # of the memory: vLLM's default of that time is 0.9; CUDA's context and workspaces take the rest
_PROMPT = 8192  # tokens of prompts that are computed together
_POLICY = {"fp8": POLICIES["paper"], "fp8-all-linear": POLICIES["all-linear"]}
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Held:
    """A model on so many GPUs. Rates are tokens a second of all of them together."""

    precision: Precision
    gpus: int
    nodes: int
    tp: int
    pp: int
    weight_bytes: float
    cache_bytes: float  # room for keys and values
    sequences: int  # of the whole context that fit at one time
    one: float  # tokens/s of one sequence alone
    many: float  # of all that fit
    bound: str  # what limits `many`
    prompt: float  # tokens/s of prompts
    first_token: float  # seconds for a prompt of the whole context


def serving(
    config: LlamaConfig, gpu: Gpu, network: Network, context: int, gpus: int = 0, cache_bytes_per_value: int = 2
) -> list[Held]:
    """By precision, on the least GPUs that hold weights and one sequence; `gpus`: on exactly so many."""
    if not 1 <= context <= config.max_seq_len:
        raise SettingError(
            f"a context of {context:,} tokens", where="context", mend=f"the model's is 1 to {config.max_seq_len:,}"
        )
    each = context * config.cache_bytes_per_token(cache_bytes_per_value)
    found = []
    for precision in _precisions(gpu):
        for count in (gpus,) if gpus else _COUNTS:
            tp = max(t for t in range(1, min(count, gpu.node) + 1) if count % t == 0 and config.n_kv_heads % t == 0)
            server = _Server(config, Fabric(gpu, network), precision, tp, count // tp, context, each)
            if count // tp <= config.n_layers and server.sequences >= 1:
                found.append(server.held())
                break
    if not found:
        weights = min(weight_bytes(config, precision) for precision in _precisions(gpu))
        raise SettingError(
            f"{gpus or max(_COUNTS)} {gpu.name} of {gpu.memory_bytes / GIB:.0f} GiB do not hold "
            f"{weights / GIB:,.0f} GiB of weights with {context:,} tokens of context",
            where="gpus",
            mend=f"give {math.ceil((weights + each) / (_USABLE * gpu.memory_bytes))} GPUs or more, GPUs with more "
            "memory, or a shorter --context",
        )
    return found


def weight_bytes(config: LlamaConfig, precision: Precision) -> float:
    """Of BF16, or of FP8 by a policy (quantize/settings.py) with one fp32 scale a row."""
    whole = 2.0 * config.parameters()
    if precision == "bf16":
        return whole
    return whole - sum(k * n - 4 * n for k, n in _narrow(config, precision))


def _narrow(config: LlamaConfig, precision: Precision) -> Iterator[tuple[int, int]]:
    """(in, out) of every matrix that a policy makes FP8."""
    shapes = {
        "q_proj": (config.dim, config.dim),
        "k_proj": (config.dim, config.kv_dim),
        "v_proj": (config.dim, config.kv_dim),
        "o_proj": (config.dim, config.dim),
        "gate_proj": (config.dim, config.ffn_dim),
        "up_proj": (config.dim, config.ffn_dim),
        "down_proj": (config.ffn_dim, config.dim),
    }
    for name in _POLICY[precision].names(config.n_layers):
        yield shapes[name.rpartition(".")[2]]


def _precisions(gpu: Gpu) -> tuple[Precision, ...]:
    return ("bf16", "fp8", "fp8-all-linear") if gpu.fp8_flops else ("bf16",)


@dataclass(frozen=True)
class _Server:
    """A model cut over tp * pp GPUs. `each`: bytes of keys and values of one sequence of `context` tokens."""

    config: LlamaConfig
    fabric: Fabric
    precision: Precision
    tp: int
    pp: int
    context: int
    each: float

    @property
    def room(self) -> float:
        gpus = self.tp * self.pp
        return gpus * self.fabric.gpu.memory_bytes * _USABLE - weight_bytes(self.config, self.precision)

    @property
    def sequences(self) -> int:
        return int(self.room // self.each)

    def held(self) -> Held:
        one, _ = self.answer(1)
        many, bound = self.answer(self.sequences)
        first = self.prompt()
        return Held(
            precision=self.precision,
            gpus=self.tp * self.pp,
            nodes=-(-self.tp * self.pp // self.fabric.gpu.node),
            tp=self.tp,
            pp=self.pp,
            weight_bytes=weight_bytes(self.config, self.precision),
            cache_bytes=self.room,
            sequences=self.sequences,
            one=1 / one,
            many=self.sequences / many,
            bound=bound,
            # Micro-batches follow one another through the stages: inference has no flush (paper, section 6.1).
            prompt=self.pp * self.context / first,
            first_token=first,
        )

    def answer(self, batch: int) -> tuple[float, str]:
        """Seconds until each of `batch` sequences has its next token, and what takes longest of it.

        With a micro-batch for each of them, all stages work at once, and each reads its weights for its micro-batch:
        a step of all sequences takes as long as one of a micro-batch through all stages.
        """
        config, gpu = self.config, self.fabric.gpu
        rate = self.tp * gpu.memory_rate * (1.0 if gpu.measured else MEMORY_SHARE)
        rows = math.ceil(batch / min(batch, self.pp))
        looked_up = 0 if config.tie_embeddings else 2 * config.embedding_parameters()
        weights = (weight_bytes(config, self.precision) - looked_up) / rate
        cache = rows * self.each / rate
        products = rows * self._per_token()
        network = 2 * config.n_layers * self.fabric.all_reduce(2 * rows * config.dim, Group(self.tp, 1, 1))
        network += (self.pp - 1) * self.fabric.send(2 * rows * config.dim / self.tp, gpu.node)
        takes = {"weights": weights, "keys and values": cache, "products": products, "network": network}
        return max(weights + cache, products) + network, max(takes, key=lambda name: takes[name])

    def _per_token(self) -> float:
        """Seconds of one token's products, were they as large as a prompt's."""
        config, side = self.config, 8192

        def of_one(fp8: bool) -> float:
            return product_seconds(self.fabric.gpu, side, side, side, fp8) / side**3

        narrow = sum(k * n for k, n in _narrow(config, self.precision)) if self.precision != "bf16" else 0
        plain = config.parameters() - config.embedding_parameters() * (not config.tie_embeddings) - narrow
        return (plain * of_one(False) + (narrow * of_one(True) if narrow else 0.0)) / self.tp

    def prompt(self) -> float:
        """Seconds of a prompt as long as the context, computed in pieces."""
        config, gpu, tp = self.config, self.fabric.gpu, self.tp
        tokens = min(_PROMPT, self.context)
        products, policy = layer_products(config, tp), _POLICY.get(self.precision)

        def layer(narrow: bool) -> float:
            both = narrow and self.precision == "fp8-all-linear"
            first = sum(product_seconds(gpu, tokens, k, n, both) for k, n in products[:2])
            return first + sum(product_seconds(gpu, tokens, k, n, narrow) for k, n in products[2:])

        kept = policy.keep_first + policy.keep_last if policy else 0  # layers that stay in BF16
        layers = (config.n_layers - kept) * layer(policy is not None) + kept * layer(False)
        layers += config.n_layers * 2 * self.fabric.all_reduce(2 * tokens * config.dim, Group(tp, 1, 1))
        forward, _ = gpu.attention[gpu.best_attention]
        looking = config.n_layers * 2.0 * self.context**2 * config.dim / tp / (forward * gpu.clock)
        return layers * self.context / tokens + looking
