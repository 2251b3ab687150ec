"""Batch-invariant passes: products whose rows depend on no other row.

A library of matrices picks its order of sums by the shape of a product, so a token computed beside 31 others differs
in its last bits from the same token alone, and now and then a draw turns over. herd's own kernels sum in an order that
only the length of a row fixes. With them, and with attention and norms of fixed order (`paged`), a request gives the
same bits alone, in any batch, with its prompt in pieces or found in pages, on any number of threads.
Llama's plain layers are replaced here; FP8 and Q8_0 layers use such kernels anyway.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from herd.errors import SettingError
from herd.generate.twin import replaced
from herd.kernels import linear_bf16, linear_f32
from herd.kernels.attention import usable
from herd.llama.attention import Linear
from herd.llama.model import Llama
from herd.weights.fp8 import Fp8Linear
from herd.weights.q8_0 import Q8Linear

_PRODUCTS = {torch.float32: linear_f32, torch.bfloat16: linear_bf16}


class RowLinear(nn.Module):
    """x W^T by herd's kernel, however many rows there are."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self._product = weight, _PRODUCTS[weight.dtype]

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x, self.weight)


def decide(model: Llama, wanted: bool | None, cache_dtype: torch.dtype | None) -> bool:
    """Whether passes are to be batch-invariant: as `wanted`, by default wherever that costs under a tenth.

    Not by default for float32 matrices, whose products torch's library does up to a third faster when rows are many.
    SettingError where it is wanted and cannot be.
    """
    reason = hindrance(model, cache_dtype) if wanted is not False else ""
    if wanted and reason:
        raise SettingError(
            f"this model's passes cannot be batch-invariant: {reason}",
            where="invariant",
            mend="leave it out, merge adapters first, or run on the CPU with compiled kernels",
        )
    if wanted is None:
        return not reason and not any(_is_float32(layer) for layer in _products(model).values())
    return wanted


def _is_float32(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.Embedding) and layer.weight.dtype == torch.float32


def hindrance(model: Llama, cache_dtype: torch.dtype | None) -> str:
    """Why passes of this model cannot be batch-invariant; "" if they can."""
    weight = model.model.norm.weight  # never quantised, unlike the matrices
    if not usable(weight.device, weight.dtype, cache_dtype or weight.dtype, model.config.head_dim):
        return "only those of the compiled kernels on a CPU are (`herd doctor` says whether they are there)"
    for name, layer in _products(model).items():
        if by_rows(layer) is None:
            return f"{name} is a {type(layer).__name__}, whose rows are not computed one by one"
    return ""


def by_rows(layer: nn.Module) -> nn.Module | None:
    """The same product row by row; None for what knows none, an adapter for instance."""
    if isinstance(layer, Fp8Linear | Q8Linear | RowLinear):
        return layer
    if isinstance(layer, nn.Embedding) or (isinstance(layer, Linear) and layer.bias is None):
        weight = layer.weight.detach()
        return RowLinear(weight) if weight.dtype in _PRODUCTS else None
    return None


def with_rows(model: Llama) -> Llama:
    """The same model with products row by row, its output matrix too; `hindrance` has nothing against it."""
    layers = nn.ModuleList(_by_rows(block) for block in model.model.layers)
    head = model.model.embed_tokens if model.config.tie_embeddings else model.lm_head
    twin = replaced(model, model=replaced(model.model, layers=layers), lm_head=_row_product(head))
    twin.config = replace(model.config, tie_embeddings=False)  # its head is a module of its own, over the same numbers
    return twin


def _by_rows(module: nn.Module) -> nn.Module:
    """The module with every product in it row by row."""
    parts = {
        name: _row_product(part) if name.endswith("_proj") else _by_rows(part) for name, part in module.named_children()
    }
    return replaced(module, **parts)


def _row_product(layer: nn.Module) -> nn.Module:
    product = by_rows(layer)
    assert product is not None, "asked for `hindrance` before"
    return product


def _products(model: Llama) -> dict[str, nn.Module]:
    """Every layer that multiplies, by its name."""
    found = {name: layer for name, layer in model.model.named_modules() if name.endswith("_proj")}
    return found | {"the output matrix": model.model.embed_tokens if model.config.tie_embeddings else model.lm_head}
