"""The compiled kernels in training: norms, SwiGLU, rotations, attention and the loss of a built model on the CPU.

    with compiled(model):          # while it trains; parameters, names and what else is in its layers stay
        ...

Plain parts of the network take another forward pass over the same parameters, and get their own back at the end: a
part that somebody replaced (recomputed layers aside, which call the parts inside) is left alone. Where tensors are none
that the library takes (another device, a cache, a distributed tensor), the plain pass runs. HERD_KERNELS=torch keeps
the library out. Gradients equal the plain ones within rounding.

Of many processes each computes its part so: FSDP's layers hold plain tensors while they compute, tensor ranks their own
heads and columns. What stays torch's there: attention over the keys of other context ranks, and the loss over a
vocabulary that tensor ranks share.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from herd.devices import free_memory
from herd.kernels import training, training_attention, training_loss, training_products
from herd.kernels.library import kernels
from herd.llama import fused
from herd.llama.attention import Attention, Layout, Linear
from herd.llama.block import FeedForward, RMSNorm
from herd.llama.loss import chunked_cross_entropy
from herd.llama.remade import remade

LARGE = 2**21  # bytes of a large page


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The norm of the network, through the library where it takes these tensors."""
    if torch.is_grad_enabled() and training.usable(x, weight):
        return remade(training.rms_norm, x, weight, eps)
    return fused.rms_norm(x, weight, eps)


class _RMSNorm(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class _Linear(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return training_products.linears(x, (self.weight,))[0] if _on_tiles(x, self) else super().forward(x)


def _on_tiles(x: Tensor, *layers: Linear) -> bool:
    """Whether the library multiplies here, on matrix tiles."""
    if not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    return training_products.multiplies(x, *(layer.weight for layer in layers))


def _projections(x: Tensor, *layers: Linear) -> tuple[Tensor, ...]:
    """Each layer of x; at once where all are plain and nobody looks at one of them."""
    plain = all(type(layer) is _Linear and not (layer._forward_hooks or layer._backward_hooks) for layer in layers)
    if plain and _on_tiles(x, *layers):
        return training_products.linears(x, [layer.weight for layer in layers])
    return tuple(layer(x) for layer in layers)


class _FeedForward(FeedForward):
    def forward(self, x_BTD: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and training.usable(x_BTD)):
            return super().forward(x_BTD)
        gate_BTF, up_BTF = _projections(x_BTD, self.gate_proj, self.up_proj)
        if not training.usable(gate_BTF, up_BTF):
            return super().forward(x_BTD)
        out_BTD: Tensor = self.down_proj(remade(training.swiglu, gate_BTF, up_BTF))
        return out_BTD


class _Attention(Attention):
    def forward(self, x_BTD: Tensor, layout: Layout) -> Tensor:
        if layout.cache is not None or not (torch.is_grad_enabled() and training.usable(x_BTD)):
            return super().forward(x_BTD, layout)
        projected = _projections(x_BTD, self.q_proj, self.k_proj, self.v_proj)
        q_BTHK, k_BTGK, v_BTGK = (each.view(*each.shape[:-1], -1, self.head_dim) for each in projected)
        cos, sin = layout.cos.float(), layout.sin.float()
        q_BTHK, k_BTGK = training.rotate(q_BTHK, cos, sin), training.rotate(k_BTGK, cos, sin)
        out_BTD: Tensor = self.o_proj(self.mix(q_BTHK, k_BTGK, v_BTGK, layout).flatten(2))
        return out_BTD

    def mix(self, q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, layout: Layout) -> Tensor:
        plain = layout.cache is None and torch.is_grad_enabled() and training.usable(q_BTHK, k_BSGK, v_BSGK)
        if plain and training_attention.attends(q_BTHK):
            return training_attention.attention(q_BTHK, k_BSGK, v_BSGK, _starts(q_BTHK, layout))
        return super().mix(q_BTHK, k_BSGK, v_BSGK, layout)


def _starts(q_BTHK: Tensor, layout: Layout) -> Tensor:
    if layout.starts_BT is None:
        return torch.zeros(q_BTHK.shape[:2], dtype=torch.int32)
    return layout.starts_BT.to(torch.int32).contiguous()


_COMPILED: dict[type[nn.Module], type[nn.Module]] = {
    RMSNorm: _RMSNorm,
    FeedForward: _FeedForward,
    Attention: _Attention,
    Linear: _Linear,
}


@cache
def _compiled(kind: type[nn.Module]) -> type[nn.Module] | None:
    """What a plain part becomes, or one that has had another kind put before it (parallel/context.py: become)."""
    *before, own = kind.__bases__
    if kind in _COMPILED or own not in _COMPILED or not before or "forward" in vars(kind):
        return _COMPILED.get(kind)
    return type(kind.__name__, (*before, _COMPILED[own]), {})


@contextmanager
def compiled(*models: nn.Module) -> Iterator[None]:
    """Let the plain parts of `models` compute through the library, where there is one."""
    parts = dict.fromkeys(part for model in models for part in model.modules()) if kernels() is not None else ()
    kinds: dict[nn.Module, Any] = {part: _compiled(cast(Any, type(part))) for part in parts}
    changed = [part for part, kind in kinds.items() if kind is not None]
    before = [type(part) for part in changed]
    for part in changed:
        part.__class__ = kinds[part]
    try:
        yield
    finally:
        for part, plain in zip(changed, before, strict=True):
            part.__class__ = plain


def cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor, counted: Tensor | None = None
) -> Tensor:
    """`chunked_cross_entropy`, through the library where it takes these tensors."""
    if not (torch.is_grad_enabled() and training.usable(hidden_ND, weight_VD)):
        return chunked_cross_entropy(hidden_ND, weight_VD, targets_N, weights_N, counted=counted)
    if counted is None:
        counted = weights_N.nonzero().squeeze(1)
    if counted.numel() < weights_N.numel():
        hidden_ND, targets_N, weights_N = hidden_ND[counted], targets_N[counted], weights_N[counted]
    return training_loss.cross_entropy(hidden_ND, weight_VD, targets_N, weights_N)


@cache
def keep_freed_memory() -> None:
    """Let this process keep what it frees, on large pages, where the C library is glibc.

    Every step asks for the same activations again. Given back to the system, their pages come back one fault each. And
    on pages of 4 KiB products wait for look-ups: on large ones a step takes 0.85 to 0.94 of its time. Pieces of over
    32 MiB are kept as long as the marked heap has room for them.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    for option, value in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 16 << 20)):
        library.mallopt(option, value)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = free_memory(torch.device("cpu")) // 2 // LARGE * LARGE
    library.mallopt(_MMAP_MAX, 0)  # from the heap, which stays marked when the piece is freed; nothing of it is touched
    piece = library.malloc(size)
    library.mallopt(_MMAP_MAX, 1 << 16)
    if piece:
        library.madvise(-(-piece // LARGE) * LARGE, size - LARGE, mmap.MADV_HUGEPAGE)
        library.free(piece)


_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -3, -1, -2, -4  # of malloc.h; 32 MiB is the most for the first
