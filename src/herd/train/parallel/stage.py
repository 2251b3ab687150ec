"""A built model cut into the stages of a pipeline: what a rank keeps, and how a stage computes.

    part = cut(model, balanced(config.n_layers, pp, virtual), rank, pp)      # the model may be on the meta device
    part.named_parameters()         # this rank's, under the names that they have in the whole model
    stages_of(part)                 # modules that share them, one after the other; `pipeline.py` runs these

Nothing is copied: a part owns what the model owned. Part and stages share modules, not their lists of layers: what puts
another module in the place of a layer (`recompute`) is done to each stage.

A stage is called like the whole model, but all stages except the first begin with hidden states that they `receive`,
not with an embedding. So an objective is called with the last stage for its model, and needs to know nothing of
pipelines. The embedding of a tied model stands on two ranks, on the last as output matrix (`tied_name`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import cast

from torch import Tensor, nn

from herd.errors import InputError, SettingError
from herd.llama.attention import Layout
from herd.llama.cache import KVCache
from herd.llama.model import Backbone, Llama
from herd.train.objectives.reward import RewardModel, Score

EMBEDDING = "model.embed_tokens.weight"


class Elsewhere(nn.Module):
    """In the place of a layer that another stage has, so that layers are counted and named as in the whole model."""

    def forward(self, *args: object) -> Tensor:
        raise AssertionError("this layer is in another stage")


class _BackbonePart(Backbone):
    """Some of the layers, and the embedding and the last norm where they belong to them."""

    def __init__(self, whole: Backbone, layers: Collection[int], embeds: bool, ends: bool) -> None:
        nn.Module.__init__(self)
        if embeds:
            self.embed_tokens = whole.embed_tokens
        held = [block if number in layers else Elsewhere() for number, block in enumerate(whole.layers)]
        self.layers = nn.ModuleList(held)
        if ends:
            self.norm = whole.norm


class LlamaPart(Llama):
    """What a rank has of a Llama: the layers of all of its stages. For its parameters; only stages are called."""

    def __init__(self, whole: Llama, layers: Collection[int], *, embeds: bool, ends: bool) -> None:
        nn.Module.__init__(self)
        self.config, self.layers_here = whole.config, layers
        self.model = _BackbonePart(whole.model, layers, embeds, ends)
        if ends and not whole.config.tie_embeddings:
            self.lm_head = whole.lm_head


class LlamaStage(LlamaPart):
    """Consecutive layers of a Llama. Gives their hidden states; the last stage those after the last norm."""

    def __init__(
        self, whole: Llama, layers: range, *, first: bool = False, last: bool = False, embeds: bool = False
    ) -> None:
        super().__init__(whole, layers, embeds=embeds, ends=last)
        self.first, self.last = first, last
        self._received: Tensor | None = None
        self.layout: Layout | None = None  # of the rows of the last forward

    def receive(self, hidden_BTD: Tensor | None, layout: Layout | None = None) -> None:
        """The hidden states that the next forward begins with, and what another stage found of the same rows (where
        their tokens stand, who sees whom), so that it is made and kept once. None forgets them."""
        self._received, self.layout = hidden_BTD, layout

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        if cache is not None:
            raise InputError("a stage of a pipeline writes no cache", where="cache")
        x_BTD = self.model.embed_tokens(tokens_BT) if self.first else self._received
        assert x_BTD is not None, "a stage was called before it received anything"
        if self.layout is None:
            self.layout = self._layout(x_BTD, positions_BT, document_ids_BT, None)
        for layer in self.layers_here:
            x_BTD = self.model.layers[layer](x_BTD, self.layout)
        hidden_BTD: Tensor = self.model.norm(x_BTD) if self.last else x_BTD
        return hidden_BTD


class _RewardPart(RewardModel):
    """A reward model over a part of a Llama. As the last stage it is called like the whole."""

    def __init__(self, llama: Llama, score: Score | None) -> None:
        nn.Module.__init__(self)
        self.llama = llama
        if score is not None:
            self.score = score


def cut(model: nn.Module, layers: Sequence[int], rank: int, pp: int) -> nn.Module:
    """The part of a Llama or a RewardModel that pipeline rank `rank` of `pp` has; stage s has `layers[s]` layers.

    Raises SettingError when the layers are not the model's.
    """
    llama = network(model)
    score = model.score if isinstance(model, RewardModel) else None
    if sum(layers) != llama.config.n_layers or len(layers) % pp:
        raise SettingError(
            f"{len(layers)} stages of {sum(layers)} layers: {pp} ranks share a model of {llama.config.n_layers}",
            where="layers",
        )
    borders = [0, *accumulate(layers)]
    own, last = range(rank, len(layers), pp), len(layers) - 1
    # A reward model never multiplies with the output matrix, so a tied one needs no second embedding.
    embeds_again = llama.config.tie_embeddings and score is None
    stages: list[nn.Module] = [
        LlamaStage(
            llama,
            range(borders[s], borders[s + 1]),
            first=s == 0,
            last=s == last,
            embeds=s == 0 or (s == last and embeds_again),
        )
        for s in own
    ]
    part: nn.Module = LlamaPart(
        llama,
        [layer for s in own for layer in range(borders[s], borders[s + 1])],
        embeds=0 in own or (last in own and embeds_again),
        ends=last in own,
    )
    if score is not None:
        part = _RewardPart(cast(Llama, part), score if last in own else None)
        if last in own:
            stages[-1] = _RewardPart(cast(Llama, stages[-1]), score)
    # Not as children: their parameters are the part's already, under other names. Copies of the part copy them too.
    part.__dict__["stages"] = tuple(stages)
    return part


def stages_of(part: nn.Module) -> tuple[nn.Module, ...]:
    """The stages of a rank's part, first to last."""
    stages: tuple[nn.Module, ...] = part.__dict__["stages"]
    return stages


def roots_of(part: nn.Module) -> tuple[nn.Module, ...]:
    """What is called: the stages of a pipeline rank, or a model that is not cut into any."""
    return stages_of(part) if "stages" in part.__dict__ else (part,)


def network(model: nn.Module) -> Llama:
    """The Llama inside a model or a stage of one."""
    return model.llama if isinstance(model, RewardModel) else cast(Llama, model)


def tied_name(part: nn.Module) -> str | None:
    """The parameter that the first and the last rank both have and must keep equal; None on ranks without one."""
    tied = isinstance(part, Llama) and part.config.tie_embeddings and hasattr(part.model, "embed_tokens")
    return EMBEDDING if tied else None
