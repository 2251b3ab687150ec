"""The layers of a paged model as a program: a pass is one call into the compiled library.

A decoding step of 16 layers is 210 kernels; called from Python they lost 14 of 86 ms to the way there. Prompts gain
memory that is kept: fresh one cost 512 tokens of the 1B shape 12,000 faults. What is recorded is what `PagedBlock`
does, in its order and to its bits. Not every model can be: an adapter, a fixed scale of activations, or a product that
torch does leaves it to be computed layer by layer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from herd.generate.invariant import RowLinear
from herd.generate.paged_cache import PagedCache
from herd.kernels.library import kernels
from herd.kernels.program import Program
from herd.llama.attention import Layout
from herd.llama.block import Block, RMSNorm
from herd.weights.bf16 import Bf16Linear
from herd.weights.fp8 import Fp8Linear
from herd.weights.q8_0 import Q8Linear
from herd.weights.resident import LARGE, arena

_LINE = 64  # bytes
LEAST_ROWS = 64  # of a pass, which room is made for at once; for more when more come
MOST_ROWS = 2048  # longer passes go layer by layer, so that what they take is given back


class _Matrix(NamedTuple):
    """What a product reads."""

    weight: Tensor
    scale: Tensor | None = None
    bound: float | None = None


class _Kept(NamedTuple):
    """A module's entry that the program was recorded with: if it is another now, the program is of another model."""

    entries: dict[str, Any]
    name: str
    value: Any
    address: int  # of a tensor


class Recorded:
    """The blocks of a model and its last norm over `cache`; recorded when first asked, and anew when weights moved."""

    def __init__(self, blocks: Sequence[Block], norm: RMSNorm, cache: PagedCache) -> None:
        self._blocks, self._norm, self._cache = blocks, norm, cache
        self._kept: list[_Kept] | None = None
        self._most = LEAST_ROWS
        self._pass: _Pass | None = None

    def run(self, x_1ND: Tensor, layout: Layout) -> Tensor | None:
        """Normed hidden states [1, N, D]; None where the layers have to do it themselves."""
        work = self._cache.work
        assert work is not None, "nobody told what these tokens are"
        n_tokens = x_1ND.shape[1]
        if not 0 < n_tokens <= MOST_ROWS:
            return None
        if self._kept is None or n_tokens > self._most or not _unchanged(self._kept):
            while n_tokens > self._most:
                self._most *= 2
            self._pass = None  # its room first
            self._kept = [kept for module in (*self._blocks, self._norm) for kept in _entries(module)]
            self._pass = _Pass.of(self._blocks, self._norm, self._cache, self._most)
        if self._pass is None or x_1ND.dtype != self._pass.x.dtype:
            return None
        return self._pass.run(x_1ND, layout, self._cache)


class _Pass(NamedTuple):
    program: Program
    x: Tensor  # [most, D]: hidden states as they come
    out: Tensor  # and normed, as they go

    @staticmethod
    def of(blocks: Sequence[Block], norm: RMSNorm, cache: PagedCache, most: int) -> _Pass | None:
        matrices = [_matrices(block) for block in blocks]
        if not cache.compiled or not blocks or any(each is None for each in matrices):
            return None
        program, width = Program(most), len(norm.weight)
        widths = {name: len(matrix.weight) for name, matrix in (matrices[0] or {}).items()}
        rooms = _rooms(widths | dict.fromkeys(("x", "normed", "mixed"), width), most, norm.weight.dtype)
        x, normed, mixed = (rooms[name] for name in ("x", "normed", "mixed"))
        added = None  # what the layer before has yet to add to x
        for block, known in zip(blocks, matrices, strict=True):
            _record(program, block, known or {}, rooms, (x, added, normed, mixed), cache)
            added = rooms["down_proj"]
        program.norm(x, added, norm.weight, norm.eps, out=normed)
        return _Pass(program, x, normed)

    def run(self, x_1ND: Tensor, layout: Layout, cache: PagedCache) -> Tensor:
        assert cache.work is not None
        given, out_1ND = x_1ND.contiguous(), torch.empty_like(x_1ND, memory_format=torch.contiguous_format)
        size = given.numel() * given.element_size()
        ctypes.memmove(self.x.data_ptr(), given.data_ptr(), size)
        self.program.run(given.shape[1], layout.cos[0, :, 0], layout.sin[0, :, 0], cache.work.planned)
        ctypes.memmove(out_1ND.data_ptr(), self.out.data_ptr(), size)
        return out_1ND


def _rooms(widths: Mapping[str, int], most: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Buffers [most, width] that begin at lines of a cache, on large pages where they are worth one."""
    lengths = [-(-most * width * dtype.itemsize // _LINE) * _LINE for width in widths.values()]
    total = sum(lengths)
    parts = torch.split(arena(total) if total >= LARGE else torch.empty(total, dtype=torch.uint8), lengths)
    return {
        name: part[: most * width * dtype.itemsize].view(dtype).view(most, width)
        for (name, width), part in zip(widths.items(), parts, strict=True)
    }


def _record(
    program: Program,
    block: Block,
    matrices: dict[str, _Matrix],
    rooms: dict[str, Tensor],
    between: tuple[Tensor, Tensor | None, Tensor, Tensor],
    cache: PagedCache,
) -> None:
    """What `PagedBlock` does, with the sum at the end of the layer before done by this one's first norm."""
    x, added, normed, mixed = between

    def product(name: str, given: Tensor) -> Tensor:
        matrix, out = matrices[name], rooms[name]
        program.product(given, matrix.weight, matrix.scale, out=out, bound=matrix.bound)
        return out

    first, second, pages = block.input_layernorm, block.post_attention_layernorm, cache.layers[block.self_attn.layer]
    program.norm(x, added, first.weight, first.eps, out=normed)
    q, k, v = (product(name, normed) for name in ("q_proj", "k_proj", "v_proj"))
    program.rotate(q, k, v, pages)
    program.attend(q, pages, out=mixed)
    program.norm(x, product("o_proj", mixed), second.weight, second.eps, out=normed)
    gate, up = product("gate_proj", normed), product("up_proj", normed)
    program.swiglu(gate, up)
    product("down_proj", gate)


def _matrices(block: Block) -> dict[str, _Matrix] | None:
    """The seven matrices by name; None if one is of a kind that a program does not know."""
    products = {
        name: layer
        for part in (block.self_attn, block.mlp)
        for name, layer in part.named_children()
        if name.endswith("_proj")
    }
    known = {name: matrix for name, layer in products.items() if (matrix := _matrix(layer)) is not None}
    return known if len(known) == len(products) == 7 else None


def _matrix(layer: nn.Module) -> _Matrix | None:
    """Exact types: a layer made out of one of these may do something else."""
    found, kind = kernels(), type(layer)
    if found is None or layer._forward_hooks or layer._forward_pre_hooks:
        return None
    if isinstance(layer, Fp8Linear) and kind is Fp8Linear and layer.input_scale is None:
        return _Matrix(layer.weight, layer.weight_scale, layer.bound)
    if isinstance(layer, RowLinear | Q8Linear) and kind in (RowLinear, Q8Linear):
        return _Matrix(layer.weight)
    if isinstance(layer, Bf16Linear) and kind is Bf16Linear and layer.weight.dtype == torch.bfloat16:
        # where the kernel is not the fastest for many rows, torch does them
        return _Matrix(layer.weight) if found.multiplies_matrices else None
    return None


def _entries(module: nn.Module) -> list[_Kept]:
    """Everything that a module and its parts hold."""
    return [
        _Kept(entries, name, value, value.data_ptr() if isinstance(value, Tensor) else 0)
        for part in module.modules()
        for entries in (part._modules, part._parameters, part._buffers)
        for name, value in entries.items()
    ]


def _unchanged(kept: Sequence[_Kept]) -> bool:
    """Whether everything is where it was: 50 us for 16 layers."""
    for entries, name, value, address in kept:
        moved = address and value.data_ptr() != address
        if moved or entries.get(name) is not value:
            return False
    return True
