"""Gradient checkpointing: parts of a layer forget their activations and compute them again in the backward pass.

    recompute(model, "elementwise")      # norms' and SwiGLU's results, gathered and repeated keys: no product
    recompute(model, "mlp", every=2)     # and the feed-forward half, in every second layer
    recompute(model, "layer")            # memory of one layer's activations, a third more compute

Each takes less memory than the one before. Parts of a built model are replaced from outside; parameter names stay. The
same operations run on the same numbers, so gradients are equal bit for bit (Chen et al. 2016; selecting parts:
Korthikanti et al. 2022). Dropout draws the same mask again, because torch puts back its generator.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from herd.errors import SettingError
from herd.llama.attention import Layout
from herd.llama.block import Block, FeedForward
from herd.llama.model import Llama
from herd.llama.remade import is_making_again, making_again
from herd.train.settings import Recompute


class _SameParts(Block):
    """A layer of the same parts."""

    def __init__(self, block: Block) -> None:
        nn.Module.__init__(self)
        self.self_attn, self.mlp = block.self_attn, block.mlp
        self.input_layernorm, self.post_attention_layernorm = block.input_layernorm, block.post_attention_layernorm
        self.train(block.training)


class SparingBlock(_SameParts):
    """It keeps what its products gave, not what was made of that for the next ones (llama/remade.py)."""

    def forward(self, x_BTD: Tensor, layout: Layout) -> Tensor:
        if torch.compiler.is_compiling() and not is_making_again():
            return super().forward(x_BTD, layout)  # in one graph, of which the compiler keeps as little
        with making_again():
            return super().forward(x_BTD, layout)


class RecomputedBlock(_SameParts):
    """It keeps only its input."""

    def forward(self, x_BTD: Tensor, layout: Layout) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x_BTD, layout)
        out_BTD: Tensor = checkpoint(super().forward, x_BTD, layout, use_reentrant=False)
        return out_BTD


class RecomputedFeedForward(FeedForward):
    """The feed-forward half of a layer, whose activations are the widest, keeping only its input."""

    def __init__(self, mlp: FeedForward) -> None:
        nn.Module.__init__(self)
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self.train(mlp.training)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x_BTD)
        out_BTD: Tensor = checkpoint(super().forward, x_BTD, use_reentrant=False)
        return out_BTD


def let_compilers_make_again() -> None:
    """Let torch.compile make again what products need: left alone it keeps that (torch 2.13; a switch without a name
    that torch promises to keep)."""
    import torch._functorch.config as functorch

    functorch.ban_recompute_materialized_backward = False


def recompute(model: Llama, what: Recompute, every: int = 1) -> None:
    """Replace every `every`-th layer, in place; "nothing" does nothing."""
    if every < 1:
        raise SettingError(f"every is {every}", where="recompute_every", mend="give 1 for all layers, 2 for half")
    if what == "nothing":
        return
    layers = model.model.layers
    for index in range(0, len(layers), every):
        block = layers[index]
        # A part of a model has other layers elsewhere; and what keeps less already stays as it is.
        if not isinstance(block, Block) or isinstance(block, RecomputedBlock):
            continue
        if what == "mlp" and not isinstance(block.mlp, RecomputedFeedForward):
            block.mlp = RecomputedFeedForward(block.mlp)
        layers[index] = RecomputedBlock(block) if what == "layer" else SparingBlock(block)
