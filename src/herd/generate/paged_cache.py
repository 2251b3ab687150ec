"""Keys and values in pages: the tensors behind `herd.generate.pages`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from herd.kernels import gpu
from herd.kernels.attention import E4M3, PageTensors, usable
from herd.kernels.e4m3 import quantize_rows
from herd.llama.config import LlamaConfig

if TYPE_CHECKING:
    from herd.generate.work import Work


class PagedCache:
    """Keys and values of all pages, one pair of tensors [pages, G, page, K] a layer.

    In float8_e4m3fn each key and each value of a head has an fp32 scale of its own, its largest magnitude over 448: a
    single one for the cache would have to be known before the first token, and what exceeds it would be cut off.
    """

    def __init__(
        self,
        config: LlamaConfig,
        pages: int,
        page: int,
        dtype: torch.dtype,
        device: torch.device | str,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        """`dtype`: the model's, and the cache's unless `cache_dtype` says otherwise."""
        model_dtype, dtype = dtype, cache_dtype or dtype
        # whether a GPU's kernel reads pages where they lie
        self.in_place = gpu.attends(torch.device(device), model_dtype, dtype)
        # one page more than tables hold, for what fills up a captured step; there where steps can be captured
        self.nobodys = pages
        shape = (pages + self.in_place, config.n_kv_heads, page, config.head_dim)

        def room() -> Tensor:
            # zeros, not empty: a rubbish NaN times an attention weight of zero would still be NaN
            return torch.zeros(shape, dtype=dtype, device=device)

        def scales() -> Tensor | None:
            return torch.zeros(shape[:3], device=device) if dtype == E4M3 else None

        self.layers = [PageTensors(room(), room(), scales(), scales()) for _ in range(config.n_layers)]
        self.exact = dtype == model_dtype  # whether what is read is what was written
        self.page, self.per_group = page, config.n_heads // config.n_kv_heads
        self.compiled = usable(self.device, model_dtype, dtype, config.head_dim)  # whether the library does passes
        self.work: Work | None = None  # who the tokens of the pass under way are

    @property
    def device(self) -> torch.device:
        return self.layers[0].keys.device

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in all layers."""
        tensors = (tensor for layer in self.layers for tensor in layer if tensor is not None)
        return sum(tensor[0].numel() * tensor.element_size() for tensor in tensors)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole pages, (from, to)."""
        if pairs:
            sources, targets = (torch.tensor(pages, device=self.device) for pages in zip(*pairs, strict=True))
            for tensor in (tensor for layer in self.layers for tensor in layer if tensor is not None):
                # as bytes: e4m3 has few operations of its own
                whole = tensor.view(torch.uint8) if tensor.dtype == E4M3 else tensor
                whole[targets] = whole[sources]

    def write(self, layer: int, k_NGK: Tensor, v_NGK: Tensor, work: Work) -> None:
        """Put the new keys and values of a pass where they belong (torch's way; the kernel has its own)."""
        keys, values, key_scale, value_scale = self.layers[layer]
        for new_NGK, target, scale in ((k_NGK, keys, key_scale), (v_NGK, values, value_scale)):
            if scale is None:
                target[work.page_N, :, work.offset_N] = new_NGK
            else:
                codes_NGK, scale_NG1 = quantize_rows(new_NGK)
                target.view(torch.uint8)[work.page_N, :, work.offset_N] = codes_NGK.view(torch.uint8)
                scale[work.page_N, :, work.offset_N] = scale_NG1.squeeze(-1)

    def read(self, layer: int, places_BGP: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values [B, S, G, K] of rows of pages, copied together; `places` counts pages and heads in one."""
        keys, values, key_scale, value_scale = self.layers[layer]
        return _gather(keys, key_scale, places_BGP, dtype), _gather(values, value_scale, places_BGP, dtype)


def _gather(tensor: Tensor, scale: Tensor | None, places_BGP: Tensor, dtype: torch.dtype) -> Tensor:
    picked = places_BGP.flatten()
    if scale is None:
        rows = tensor.flatten(0, 1).index_select(0, picked)
    else:
        codes = tensor.view(torch.uint8).flatten(0, 1).index_select(0, picked).view(E4M3)
        rows = (codes.float() * scale.flatten(0, 1).index_select(0, picked)[..., None]).to(dtype)
    return rows.view(*places_BGP.shape[:2], -1, tensor.shape[-1]).transpose(1, 2)
