"""A model whose attention reads keys and values out of pages: a second `Llama` over the same parameters.

    cache = PagedCache(config, pages=1024, page=16, dtype=torch.float32, device="cpu")
    paged = with_pages(model, cache)
    cache.work = Work.of(chunks, cache)  # who these tokens are, and which pages are theirs
    hidden_1ND = paged(tokens_1N, positions_BT=cache.work.positions_1N)

The tokens of all chunks stand behind one another in one row, so that matrices are read once for prompts and
continuations together; only attention tells the chunks apart. Where the compiled library does passes, whole layers are
replaced and everything between their products is its work; elsewhere only attention is. Nothing under llama/ knows.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from herd.generate.paged_cache import PagedCache
from herd.generate.recorded import Recorded
from herd.generate.torch_paged import TorchPagedAttention
from herd.generate.twin import replaced
from herd.kernels.attention import paged_attention
from herd.kernels.fused import add_rms_norm, rms_norm, rotate_into, swiglu
from herd.llama.attention import Layout
from herd.llama.block import Block, RMSNorm
from herd.llama.model import Llama


class PagedBlock(nn.Module):
    """`Block` with its own matrices, over the pages of `cache`; what is no product is done by the compiled library."""

    def __init__(self, plain: Block, cache: PagedCache) -> None:
        super().__init__()
        self.self_attn, self.mlp = plain.self_attn, plain.mlp
        self.input_layernorm, self.post_attention_layernorm = plain.input_layernorm, plain.post_attention_layernorm
        self._cache = cache

    def forward(self, x_1ND: Tensor, layout: Layout) -> Tensor:
        first, second, mlp = self.input_layernorm, self.post_attention_layernorm, self.mlp
        mixed_1ND = self._attend(rms_norm(x_1ND, first.weight, first.eps), layout)
        x_1ND, normed_1ND = add_rms_norm(x_1ND, mixed_1ND, second.weight, second.eps)
        out_1ND: Tensor = mlp.down_proj(swiglu(mlp.gate_proj(normed_1ND), mlp.up_proj(normed_1ND)))
        return out_1ND.add_(x_1ND)

    def _attend(self, normed_1ND: Tensor, layout: Layout) -> Tensor:
        plain, work = self.self_attn, self._cache.work
        assert work is not None, "nobody told what these tokens are"
        pages = self._cache.layers[plain.layer]
        q_NHK, k_NGK, v_NGK = (
            project(normed_1ND)[0].unflatten(-1, (-1, plain.head_dim))
            for project in (plain.q_proj, plain.k_proj, plain.v_proj)
        )
        cos_NC, sin_NC = layout.cos[0, :, 0], layout.sin[0, :, 0]
        q_NHK = rotate_into(q_NHK, k_NGK, v_NGK, cos_NC, sin_NC, pages, work.planned)
        mixed_1ND: Tensor = plain.o_proj(paged_attention(q_NHK, pages, work.planned).flatten(1)[None])
        return mixed_1ND


class PagedLayers(nn.Module):
    """All layers and the last norm, by the compiled library: in one call where that can be, else layer by layer."""

    def __init__(self, plain: Sequence[Block], norm: RMSNorm, cache: PagedCache) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PagedBlock(block, cache) for block in plain)
        self.norm = norm
        self._recorded = Recorded(plain, norm, cache)

    def forward(self, x_1ND: Tensor, layout: Layout) -> Tensor:
        hidden_1ND = self._recorded.run(x_1ND, layout)
        if hidden_1ND is not None:
            return hidden_1ND
        for block in self.blocks:
            x_1ND = block(x_1ND, layout)
        return rms_norm(x_1ND, self.norm.weight, self.norm.eps)


class Normed(nn.Module):
    """Stands for the last norm where `PagedLayers` did it."""

    def __init__(self, plain: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = plain.weight, plain.eps

    def forward(self, hidden_1ND: Tensor) -> Tensor:
        return hidden_1ND


def with_pages(model: Llama, cache: PagedCache) -> Llama:
    """The same parameters and layers, attention over pages. What is put into `model` later is not seen here."""
    plain, norm = [_block(block) for block in model.model.layers], model.model.norm
    if cache.compiled:
        layers = nn.ModuleList([PagedLayers(plain, norm, cache)])
        return replaced(model, model=replaced(model.model, layers=layers, norm=Normed(norm)))
    layers = nn.ModuleList(replaced(block, self_attn=TorchPagedAttention(block.self_attn, cache)) for block in plain)
    return replaced(model, model=replaced(model.model, layers=layers))


def _block(block: nn.Module) -> Block:
    """A twin: another part that `block` gets later is not seen here."""
    assert isinstance(block, Block)
    return replaced(block)
