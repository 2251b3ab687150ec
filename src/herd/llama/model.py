"""Llama: embeddings, layers, a last norm and the output matrix. Parameter names are Hugging Face's.

    model = Llama(config)
    init_weights(model, seed=0)                     # or weights.load_model(folder)
    hidden_BTD = model(tokens_BT)
    logits_BTV = model.logits(hidden_BTD)

forward() stops at the hidden states because training never needs all logits at once (`loss.py`) and decoding needs
those of the last position only. Parameters are uninitialised after construction.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from herd.errors import InputError
from herd.llama.attention import Layout, Linear, bias_of, document_mask
from herd.llama.block import Block, RMSNorm
from herd.llama.blocked import plan_causal, plan_documents
from herd.llama.cache import KVCache
from herd.llama.config import LlamaConfig
from herd.llama.rope import document_starts, rotation


class _Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        pass


class Backbone(nn.Module):
    """Everything but the output matrix; the level of names that Hugging Face calls `model.`"""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = _Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)


class Llama(nn.Module):
    """The network on one device. `state_dict()` has exactly Hugging Face's names; a tied model has no lm_head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        if not config.tie_embeddings:
            self.lm_head = Linear(config.dim, config.vocab_size)

    @property
    def output_weight(self) -> Tensor:
        """The V x D matrix that turns hidden states into logits; a tied model's input embedding.

        A layer that keeps it in another form makes it at every call (`dense`): who wants logits asks `logits`.
        """
        owner = self.model.embed_tokens if self.config.tie_embeddings else self.lm_head
        dense = getattr(owner, "dense", None)
        weight: Tensor = owner.weight if dense is None else dense(self.model.norm.weight.dtype)
        return weight

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Hidden states after the last norm, [B, T, D].

        `positions_BT` are 0, 1, ... unless given; with `document_ids_BT` they restart with every document and tokens
        see only their own; with a cache each row goes on where it ends, and `positions_BT` places it elsewhere.
        """
        x_BTD = self.model.embed_tokens(tokens_BT)
        layout = self._layout(x_BTD, positions_BT, document_ids_BT, cache)
        for block in self.model.layers:
            x_BTD = block(x_BTD, layout)
        if cache is not None and layout.positions_BT is not None:
            cache.advance(layout.positions_BT, layout.slots or tokens_BT.shape[1])
        hidden_BTD: Tensor = self.model.norm(x_BTD)
        return hidden_BTD

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 logits [..., V] of hidden states [..., D]; another kind of layer may stand as the output matrix."""
        if self.config.tie_embeddings:
            return nn.functional.linear(hidden, self.output_weight).float()
        logits: Tensor = self.lm_head(hidden)
        return logits.float()

    def _layout(
        self, x_BTD: Tensor, positions_BT: Tensor | None, document_ids_BT: Tensor | None, cache: KVCache | None
    ) -> Layout:
        if cache is not None:
            return self._cached_layout(x_BTD, positions_BT, document_ids_BT, cache)
        steps_1T = torch.arange(x_BTD.shape[1], device=x_BTD.device)[None]
        if document_ids_BT is None:
            cos, sin = self._rotation(steps_1T if positions_BT is None else positions_BT, x_BTD.dtype)
            trains_on_cpu = x_BTD.requires_grad and x_BTD.device.type == "cpu"
            rows, length = x_BTD.shape[:2]
            return Layout(
                cos, sin, spans=plan_causal(rows, length, self.config.n_heads, x_BTD) if trains_on_cpu else None
            )
        starts_BT = document_starts(document_ids_BT)
        cos, sin = self._rotation(steps_1T - starts_BT if positions_BT is None else positions_BT, x_BTD.dtype)
        if x_BTD.device.type == "cpu":
            return Layout(cos, sin, spans=plan_documents(starts_BT, x_BTD), starts_BT=starts_BT)
        return Layout(cos, sin, mask=bias_of(document_mask(starts_BT), x_BTD.dtype))

    def _cached_layout(
        self, x_BTD: Tensor, positions_BT: Tensor | None, document_ids_BT: Tensor | None, cache: KVCache
    ) -> Layout:
        batch, length = x_BTD.shape[:2]
        if document_ids_BT is not None:
            raise InputError("a cached pass continues one document a row", where="document_ids_BT")
        if cache.batch != batch:
            raise InputError(f"{batch} rows of tokens for a cache of {cache.batch} rows", where="KVCache")
        given = positions_BT is not None
        if positions_BT is None:
            positions_BT = cache.next_positions(length)
        slots = cache.reserve(positions_BT, given=given)
        cos, sin = self._rotation(positions_BT, x_BTD.dtype)
        if cache.longest == 0 and not given:  # the prefill of an empty cache is a plain causal pass
            return Layout(cos, sin, cache=cache, positions_BT=positions_BT)
        seen = torch.arange(slots, device=x_BTD.device) <= positions_BT[:, None, :, None]
        return Layout(cos, sin, mask=seen, cache=cache, positions_BT=positions_BT, slots=slots)

    def _rotation(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        cos, sin = rotation(self.config, positions_BT)
        return cos.to(dtype)[..., None, :], sin.to(dtype)[..., None, :]
