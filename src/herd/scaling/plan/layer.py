"""What one micro-batch costs on one rank, each way, in seconds by part: a layer, the embedding, the output and loss.

Shapes: N tokens of the micro-batch on this rank, D model width, F feed-forward width, V vocabulary, K the width of all
key heads. Tensor ranks cut widths by `tp`; where widths are whole (norms, residuals) they cut the tokens instead.

Products are counted one by one. What stands between them is counted in passes over memory: bytes a token, either of
compiled code (neighbouring operations in one kernel) or operation by operation. Attention goes by its kernel's rate.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

from herd.scaling.plan.context import gathered, ring
from herd.scaling.plan.efficiency import ASYNC_TP_HIDDEN, LAUNCH_SECONDS, MEMORY_SHARE
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.products import kv_width, layer_products, product_seconds

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")


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
        fp8 = self.way.fp8
        return [product_seconds(self.job.gpu, self.n, k, n, fp8) for k, n in self.products]

    def _backward_products(self) -> float:
        """Of each product the gradients of its input, [N, n] by [n, k], and of its weight, [k, N] by [N, n]."""
        gpu, fp8 = self.job.gpu, self.way.fp8
        return sum(
            product_seconds(gpu, self.n, n, k, fp8) + product_seconds(gpu, k, self.n, n, fp8) for k, n in self.products
        )

    def _attention(self, direction: Direction) -> float:
        """Causal: each query meets half of the sequence. Backward makes five products where forward makes two."""
        job, plan = self.job, self.way.plan
        flops = 2.0 * self.n * job.seq_len * job.config.dim / plan.tp
        forward, backward = job.gpu.attention[job.software.attention or job.gpu.best_attention]
        if direction == "forward":
            return max(flops / (forward * job.gpu.clock), self._launches(1))
        return max(2.5 * flops / (backward * job.gpu.clock), self._launches(2))

    def _launches(self, kernels: int) -> float:
        return kernels * (self.job.gpu.launch_seconds if self.job.gpu.measured else LAUNCH_SECONDS)

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
        kernels = (4 if self.way.plan.compile else 24) * (1 if direction == "forward" else 2)
        moving = self.memory(self.between_bytes(direction))
        if not self.job.gpu.measured:
            return max(moving, self._launches(kernels))
        if self.way.plan.tp == 1:
            return moving  # starting operations is in the measured rate
        # The host that starts them is the processor that computes: one after the other, products among them.
        own = self.job.gpu.dispatch_seconds - self.job.gpu.launch_seconds
        return moving + (kernels + 7 * (1 if direction == "forward" else 2)) * max(0.0, own)

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

    def _tensor(self, gathers: int) -> float:
        """So many all-gathers or reduce-scatters of hidden states among tensor ranks, as far as they are waited for."""
        size = self.n * self.job.config.dim * self.wide
        hidden = ASYNC_TP_HIDDEN if self.job.software.async_tp else 0.0
        return gathers * self.job.fabric.ring(size, self.way.tensor) * (1.0 - hidden)

    def _context(self, direction: Direction) -> float:
        return (ring if self.job.software.ring else gathered)(self, direction)

    # --- a layer ---

    def forward(self) -> Parts:
        return Parts(
            matmul=sum(self._forward_products()),
            attention=self._attention("forward"),
            elementwise=self._between("forward") + self._casts("forward"),
            tp=self._tensor(4),
            cp=self._context("forward"),
        )

    def backward(self) -> Parts:
        """Without what is computed again. Inputs of products are kept cut by tensor ranks and gathered once more."""
        return Parts(
            matmul=self._backward_products(),
            attention=self._attention("backward"),
            elementwise=self._between("backward") + self._casts("backward"),
            tp=self._tensor(4 if self.way.plan.recompute == "layer" else 6),
            cp=self._context("backward"),
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
            case "mlp":
                return Parts(matmul=gate_up, elementwise=(between + casts) / 2) * (1 / self.way.plan.recompute_every)
        whole = self.forward()
        return Parts(qkv + out + gate_up, whole.attention, between + casts, self._tensor(3), whole.cp) * (
            1 / self.way.plan.recompute_every
        )

    def layer(self, direction: Direction) -> Parts:
        return self.forward() if direction == "forward" else self.again() + self.backward()

    # --- both ends ---

    def embedding(self, direction: Direction) -> Parts:
        """Rows are looked up, and gradients added where they came from."""
        passes = 2 if direction == "forward" else 4
        size = passes * self.n * self.job.config.dim / self.way.plan.tp * self.wide
        return Parts(elementwise=self.memory(size), tp=self._tensor(1))

    def output(self, direction: Direction) -> Parts:
        """The last norm, the output matrix and the loss, whose logits are in fp32: read and written for the cast, the
        softmax and its gradient."""
        config, gpu, tp = self.job.config, self.job.gpu, self.way.plan.tp
        vocab = config.vocab_size / tp
        bytes_a_logit = (8 if direction == "forward" else 12) * (1 if self.way.plan.compile else 2)
        loss = self.memory(bytes_a_logit * self.n * vocab)
        forward = product_seconds(gpu, self.n, config.dim, vocab)
        if direction == "forward":
            return Parts(matmul=forward, elementwise=loss, tp=self._tensor(1))
        backward = product_seconds(gpu, self.n, vocab, config.dim) + product_seconds(gpu, config.dim, self.n, vocab)
        return Parts(matmul=backward, elementwise=loss, tp=self._tensor(1))
