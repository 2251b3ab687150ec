"""Low-rank adapters beside the matrices of a built `Llama`, which knows nothing of them.

    attach(model, LoraSettings(rank=16))         # base frozen; only lora_A and lora_B learn
    merge(model)                                 # plain matrices again: W + scale * B A

The base may be a plain `nn.Linear`, an eight-bit `FrozenLinear`, or the `Fp8Linear` of an FP8 folder. Not here: the
folders that adapters live in (`peft.py`), adapters of embeddings and of the output matrix, DoRA.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from herd.errors import InputError
from herd.weights.fp8 import Fp8Linear
from herd.weights.frozen import FrozenLinear
from herd.weights.settings import LoraSettings


class LoraLinear(nn.Module):
    """base(x) + scale * B A dropout(x); `lora_A` [r, in] and `lora_B` [out, r] in fp32, whatever the base is.

    Dropout draws from torch's default generator, which training seeds and keeps in its checkpoints.
    `device`: where the two are; None: with the base.
    """

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        scale: float,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.base, self.rank, self.scale, self.dropout = base, rank, scale, dropout
        assert isinstance(base, nn.Linear | FrozenLinear | Fp8Linear)
        device = base.weight.device if device is None else device
        self.lora_A = nn.Parameter(torch.zeros(rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        if isinstance(self.base, Fp8Linear):  # for inference: it does its own arithmetic, and passes no gradient
            widened: Tensor = self.base(x) + F.linear(F.linear(x, a), b) * self.scale
            return widened
        dropped = F.dropout(x, self.dropout) if self.dropout and self.training else None
        out: Tensor = _Adapted.apply(x, dropped, a, b, self.base, self.scale)  # type: ignore[no-untyped-call]
        return out

    def dense(self, dtype: torch.dtype) -> Tensor:
        """W alone, [out, in], multiplied out where it is in eight bits."""
        return _dense(self.base, dtype)

    def merged(self, dtype: torch.dtype) -> Tensor:
        """W + scale * B A as one matrix [out, in], summed in fp32."""
        total = self.dense(torch.float32).addmm(self.lora_B.detach(), self.lora_A.detach(), alpha=self.scale)
        return total.to(dtype)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scale={self.scale}, dropout={self.dropout}"


class _Adapted(torch.autograd.Function):
    """x W^T + scale (x A^T) B^T for a frozen W, the update added in place. The update reads `dropped` where given.

    Plain autograd holds a second output and adds the gradient of x twice: two walks over memory for each matrix.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, a: Tensor, b: Tensor, base: nn.Module, scale: float
    ) -> Tensor:
        low = x if dropped is None else dropped
        inner_Nr = low.flatten(0, -2) @ a.t()
        out_NE = F.linear(x.flatten(0, -2), _dense(base, x.dtype))
        out_NE.addmm_(inner_Nr, b.t(), alpha=scale)
        ctx.save_for_backward(low, a, b, inner_Nr)
        ctx.base, ctx.scale, ctx.same = base, scale, dropped is None
        return out_NE.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor, None, None]:
        low, a, b, inner_Nr = ctx.saved_tensors
        grad_NE = grad.flatten(0, -2)
        inner_grad_Nr = (grad_NE @ b).mul_(ctx.scale)
        grad_a = inner_grad_Nr.t() @ low.flatten(0, -2)
        grad_b = (grad_NE.t() @ inner_Nr).mul_(ctx.scale)
        grad_x = grad_dropped = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_NE @ _dense(ctx.base, grad.dtype)
            if ctx.same:
                grad_x.addmm_(inner_grad_Nr, a)
            grad_x = grad_x.view(low.shape)
        if ctx.needs_input_grad[1] and not ctx.same:
            grad_dropped = (inner_grad_Nr @ a).view(low.shape)
        return grad_x, grad_dropped, grad_a, grad_b, None, None


def _dense(base: nn.Module, dtype: torch.dtype) -> Tensor:
    if isinstance(base, FrozenLinear | Fp8Linear):
        return base.dense(dtype)
    assert isinstance(base, nn.Linear)
    return base.weight.detach().to(dtype)


def adapted(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The adapted matrices by the name that the matrix had before, e.g. `model.layers.0.self_attn.q_proj`."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Let `module` take the place of the one called `name`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def matrices(model: nn.Module, leaves: tuple[str, ...]) -> list[tuple[str, nn.Module]]:
    """The matrices of every layer with one of these leaf names, in the order of the network."""
    kinds = (nn.Linear, FrozenLinear, Fp8Linear, LoraLinear)
    inside = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    return [(name, module) for name, module in inside if ".layers." in f".{name}" and name.split(".")[-1] in leaves]


def attach(model: nn.Module, settings: LoraSettings, device: torch.device | str | None = None) -> None:
    """Freeze `model` and put an adapter beside each target, in place; at first the model says what it said before.

    `device`: where the adapters are; None: with their layers. A base without values (meta) may have adapters with some.
    A is drawn uniformly within 1 / sqrt(in), Kaiming's bound with a = sqrt(5) that PEFT uses; B is zero.
    Raises InputError when the model has adapters already.
    """
    if any(True for _ in adapted(model)):
        raise InputError("the model has adapters already", where="attach", mend="merge them first")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(settings.seed)
    for name, base in matrices(model, settings.targets):
        layer = LoraLinear(base, settings.rank, settings.alpha / settings.rank, settings.dropout, device)
        bound = 1.0 / math.sqrt(layer.lora_A.shape[1])
        with torch.no_grad():
            layer.lora_A.copy_(torch.empty(layer.lora_A.shape).uniform_(-bound, bound, generator=generator))
        put(model, name, layer.train(base.training))


def merge(model: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Put W + scale * B A where each adapter stood, in place, as `dtype` (the base's, or fp32 over eight bits).

    Eight-bit matrices without an adapter are multiplied out too: what is left is a plain `Llama`.
    """
    for name, layer in list(adapted(model)):
        put(model, name, _plain(layer.merged(dtype or _dtype(layer.base))))
    for name, module in list(model.named_modules()):
        if isinstance(module, FrozenLinear):
            put(model, name, _plain(module.dense(dtype or torch.float32)))


def _dtype(base: nn.Module) -> torch.dtype:
    return base.weight.dtype if isinstance(base, nn.Linear) else torch.float32


def _plain(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight)
    return layer
