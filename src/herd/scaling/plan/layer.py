"""What one micro-batch costs on one rank, each way, in seconds by part: a layer, the embedding, the output and loss.

Shapes: N tokens of the micro-batch on this rank, D model width, F feed-forward width, V vocabulary, K the width of all
key heads. Tensor ranks cut widths by `tp`; where widths are whole (norms, residuals) they cut the tokens instead.

Products are counted one by one. What stands between them is counted in passes over memory: bytes a token, either of
compiled code (neighbouring operations in one kernel) or operation by operation. Attention goes by its kernel's rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

from herd.scaling.plan.context import gathered, ring
from herd.scaling.plan.efficiency import ASYNC_TP_HIDDEN, LAUNCH_SECONDS, MEMORY_SHARE
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.measured import Overhead, rate_at
from herd.scaling.plan.products import kv_width, layer_products, product_seconds

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")
CHUNK, GPU_CHUNK = 256, 1024  # rows of logits that are alive at one time (llama/loss.py)


@dataclass(frozen=True)
class Parts:
    """Seconds, or a count of anything else, by what takes them."""

    matmul: float = 0.0
    attention: float = 0.0
    elementwise: float = 0.0  # norms, rotation, SwiGLU, residuals, loss; casts to FP8
    tp: float = 0.0
    cp: float = 0.0

    @property
    def total(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))

    def __add__(self, other: Parts) -> Parts:
        return Parts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __mul__(self, times: float) -> Parts:
        return Parts(*(getattr(self, field.name) * times for field in fields(self)))


@dataclass(frozen=True)
class Costs:
    """Of a job done in one way. `wide`: bytes of a number where products are not in FP8 (4 on a measured CPU)."""

    job: Job
    way: Way

    @property
    def wide(self) -> int:
        return 4 if self.job.gpu.measured else 2

    @property
    def n(self) -> int:
        return self.way.tokens(self.job)

    @property
    def kv(self) -> float:
        return kv_width(self.job.config, self.way.plan.tp)

    @cached_property
    def products(self) -> tuple[tuple[float, float], ...]:
        return layer_products(self.job.config, self.way.plan.tp)

    # --- the parts of a layer ---

    def _forward_products(self) -> list[float]:
        return [self._product(self.n, k, n, self.way.fp8) for k, n in self.products]

    def _product(self, m: float, k: float, n: float, fp8: bool = False) -> float:
        return product_seconds(self.job.gpu, m, k, n, fp8, cut=self.way.plan.tp > 1)

    def _backward_products(self) -> float:
        """Of each product the gradients of its input, [N, n] by [n, k], and of its weight, [k, N] by [N, n]."""
        fp8 = self.way.fp8
        return sum(self._product(self.n, n, k, fp8) + self._product(k, self.n, n, fp8) for k, n in self.products)

    def _attention(self, direction: Direction) -> float:
        """Causal: each query meets half of the sequence. Backward makes five products where forward makes two."""
        job, plan = self.job, self.way.plan
        flops = 2.0 * self.n * job.seq_len * job.config.dim / plan.tp
        forward, backward = self._attention_rates
        if direction == "forward":
            return max(flops / forward, self._launches(1))
        return max(2.5 * flops / backward, self._launches(2))

    @cached_property
    def _attention_rates(self) -> tuple[float, float]:
        gpu, length = self.job.gpu, self.job.seq_len
        if gpu.measured:
            kernel = gpu.measured.gathered_attention if self.way.plan.cp > 1 else gpu.measured.attention
            return rate_at(kernel.forward, length), rate_at(kernel.backward, length)
        forward, backward = gpu.attention[self.job.software.attention or gpu.best_attention]
        return forward * gpu.clock, backward * gpu.clock

    def _launches(self, kernels: int) -> float:
        return 0.0 if self.job.gpu.measured else kernels * LAUNCH_SECONDS

    @cached_property
    def overhead(self) -> Overhead:
        """What software costs on a measured machine however little is computed; a GPU's host runs ahead of it."""
        machine = self.job.gpu.measured
        return machine.overhead_of(self.way.plan) if machine else Overhead()

    def stream(self, size: float) -> float:
        """Seconds to read and write so many bytes in sums and copies."""
        return size / self.job.gpu.measured.stream_rate if self.job.gpu.measured else self.memory(size)

    def memory(self, size: float) -> float:
        """Seconds to move so many bytes."""
        return size / (self.job.gpu.memory_rate * (1.0 if self.job.gpu.measured else MEMORY_SHARE))

    def between_bytes(self, direction: Direction) -> float:
        """What stands between the products of a layer. Numbers of each width that are read or written, a token:

        compiled   each norm with the residual before it reads two D and writes two; rotation reads and writes q and
                   k; SwiGLU reads two F and writes one. Backward reads the gradients too, and makes the norms' and
                   SwiGLU's results again, which were not kept.
        eager      torch's operations one by one, in fp32 where the model says so: 18 D a norm, 3 D a residual, 10
                   (D + K) the rotation, 2.5 D to repeat keys and values for their query heads, 5 F for SwiGLU;
                   backward twice that.
        """
        config, tp = self.job.config, self.way.plan.tp
        d, f, k = config.dim / tp, config.ffn_dim / tp, self.kv
        if self.way.plan.compile:
            numbers = 8 * d + 2 * (d + k) + 3 * f
            if direction == "backward":
                numbers = 12 * d + 2 * (d + k) + 6 * f
        else:
            numbers = (36 + 6) * d + 10 * (d + k) + 2.5 * d + 5 * f
            if direction == "backward":
                numbers *= 2
        return numbers * self.wide * self.n

    def _between(self, direction: Direction) -> float:
        forward = direction == "forward"
        kernels = (4 if self.way.plan.compile else 24) * (1 if forward else 2)
        own = self.overhead.layer * (1 / 3 if forward else 2 / 3)
        return max(self.memory(self.between_bytes(direction)), self._launches(kernels)) + own

    def summing(self, parameters: float) -> float:
        """To add a micro-batch's gradients to the others' in fp32. On GPUs the product does so as it writes."""
        more = 1.0 - 1.0 / self.way.microbatches(self.job)
        return self.stream(12 * parameters / self.way.plan.tp) * more if self.job.gpu.measured else 0.0

    def _casts(self, direction: Direction) -> float:
        """To FP8: the largest value of a tensor is found (2 bytes), then it is read again and written (3).

        Backward reads what it needs as its transpose, made anew: of inputs two bytes, of gradients two more than of a
        cast. Weights are cast in each direction.
        """
        if not self.way.fp8:
            return 0.0
        inputs = self.n * sum(k for k, _ in self.products)
        outputs = self.n * sum(n for _, n in self.products)
        weights = 5.0 * sum(k * n for k, n in self.products)
        size = 5 * inputs if direction == "forward" else 2 * inputs + 7 * outputs
        return self.memory(size + weights)

    def _tensor(self, gathers: int, reductions: int) -> float:
        """So many all-gathers and reduce-scatters of hidden states of tensor ranks, as far as they are waited for."""
        size, fabric = self.n * self.job.config.dim * self.wide, self.job.fabric
        hidden = ASYNC_TP_HIDDEN if self.job.software.async_tp else 0.0
        each = gathers * fabric.ring(size, self.way.tensor) + reductions * fabric.reduce(size, self.way.tensor)
        return each * (1.0 - hidden)

    def _context(self, direction: Direction) -> float:
        return (ring if self.job.software.ring else gathered)(self, direction)

    # --- a layer ---

    def forward(self) -> Parts:
        return Parts(
            matmul=sum(self._forward_products()),
            attention=self._attention("forward"),
            elementwise=self._between("forward") + self._casts("forward"),
            tp=self._tensor(2, 2),
            cp=self._context("forward"),
        )

    def backward(self) -> Parts:
        """Without what is computed again. Inputs of products are kept cut by tensor ranks, keys and values by context
        ranks, and gathered once more; a layer that is made again as a whole gathers them in its forward."""
        once = self.way.plan.recompute == "layer"
        whole = once or self.way.plan.recompute == "nothing" or self.job.software.ring
        return Parts(
            matmul=self._backward_products(),
            attention=self._attention("backward"),
            elementwise=self._between("backward")
            + self._casts("backward")
            + self.summing(self.job.config.layer_parameters()),
            tp=self._tensor(2 if once else 4, 2),
            cp=self._context("backward") + (0.0 if whole else self._context("forward")),
        )

    def again(self) -> Parts:
        """What is computed again; a checkpointed part stops before its last product, whose result nobody needs."""
        qkv, out, gate_up, _ = products = self._forward_products()
        between, casts = self._between("forward"), self._casts("forward")
        if self.job.software.selective:
            return Parts(matmul=sum(products) / 2, elementwise=casts / 2)
        match self.way.plan.recompute:
            case "nothing":
                return Parts()
            case "elementwise":
                return Parts(elementwise=self._remade()) * (1 / self.way.plan.recompute_every)
            case "mlp":
                return Parts(matmul=gate_up, elementwise=(between + casts) / 2) * (1 / self.way.plan.recompute_every)
        whole = self.forward()
        return Parts(qkv + out + gate_up, whole.attention, between + casts, self._tensor(2, 1), whole.cp) * (
            1 / self.way.plan.recompute_every
        )

    def _remade(self) -> float:
        """Norms and SwiGLU operation by operation; compiled code makes them again anyway (`between_bytes`)."""
        config, tp = self.job.config, self.way.plan.tp
        numbers = 0.0 if self.way.plan.compile else (36 * config.dim + 5 * config.ffn_dim) / tp
        return self.memory(numbers * self.wide * self.n)

    def layer(self, direction: Direction) -> Parts:
        return self.forward() if direction == "forward" else self.again() + self.backward()

    # --- both ends ---

    def embedding(self, direction: Direction) -> Parts:
        """Rows are looked up, and gradients added where they came from."""
        forward = direction == "forward"
        size = (2 if forward else 4) * self.n * self.job.config.dim / self.way.plan.tp * self.wide
        found = Parts(elementwise=self.memory(size), tp=self._tensor(*((0, 1) if forward else (1, 0))))
        return found if forward else found + Parts(elementwise=self.summing(self.job.config.embedding_parameters()))

    def output(self, direction: Direction) -> Parts:
        """The last norm, the output matrix and the loss, whose logits are in fp32: read and written for the cast, the
        softmax and its gradient. Tensor ranks tell each other what they have of a row, a chunk of rows at a time."""
        config, gpu, tp = self.job.config, self.job.gpu, self.way.plan.tp
        vocab = config.vocab_size / tp
        forward = self._product(self.n, config.dim, vocab)
        if direction == "forward":
            chunk = CHUNK if gpu.measured else GPU_CHUNK
            told = math.ceil(self.n / chunk) * self.job.fabric.ring(8 * chunk * tp, self.way.tensor)
            return Parts(matmul=forward, elementwise=self._loss(direction, vocab), tp=self._tensor(1, 0) + told)
        backward = self._product(self.n, vocab, config.dim) + self._product(config.dim, self.n, vocab)
        summing = self.summing(0 if config.tie_embeddings else config.embedding_parameters())
        return Parts(matmul=backward, elementwise=self._loss(direction, vocab) + summing, tp=self._tensor(0, 1))

    def _loss(self, direction: Direction, vocab: float) -> float:
        machine = self.job.gpu.measured
        if machine:
            return self.n * vocab / (machine.cut_logits_rate if self.way.plan.tp > 1 else machine.logits_rate) / 2
        bytes_a_logit = (8 if direction == "forward" else 12) * (1 if self.way.plan.compile else 2)
        return self.memory(bytes_a_logit * self.n * vocab)
