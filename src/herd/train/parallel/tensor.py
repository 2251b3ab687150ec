"""Tensor and sequence parallelism: each rank of a group has a part of every matrix, and of the tokens in between.

    parallelise_tensors(model, mesh["tp"])           # in place; parameters become DTensors under their own names

As Megatron (Shoeybi et al. 2019; Korthikanti et al. 2022): q, k, v, gate and up are cut by outputs, o and down by
inputs, embedding and output matrix by the vocabulary. Between a sum and the next norm each rank has its part of the
tokens: the sum is a reduce-scatter over tokens, and what a norm gives is gathered again. Nothing under `llama/`
changes: kinds of modules are put before the modules' own classes, and compute with this rank's part.

Every gradient is a share: what a rank's backward gives of a replicated tensor (norm weights, hidden states after the
last norm) is a part of a sum over the group. So every rank takes 1/TP of the loss (`rows.OneShare`), and the loss over
the vocabulary (`vocabulary.py`) knows of it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.nn import functional as F

from herd.errors import SettingError
from herd.llama.attention import Attention, Layout, Linear
from herd.llama.block import FeedForward, RMSNorm
from herd.llama.cache import KVCache
from herd.llama.model import Llama
from herd.llama.remade import making_again
from herd.train.kernels import rms_norm
from herd.train.objectives.reward import RewardModel, Score
from herd.train.parallel.context import become
from herd.train.parallel.rows import padded, padded_documents
from herd.train.parallel.stage import network, roots_of
from herd.train.parallel.tokens import TensorGroup, gather_tokens, scatter_sum
from herd.train.parallel.vocabulary import VocabularyShard


def _own(module: nn.Module, *grad: Placement) -> Tensor:
    """This rank's part of a module's parameter; `grad` says how gradients of the ranks belong together."""
    weight = cast(DTensor, module._parameters["weight"])
    return weight.to_local(grad_placements=grad or None)


class _ColumnCut(Linear):
    """q, k, v, gate and up: this rank's outputs of all tokens."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.linear(x_BTD, _own(self))


class _RowCut(Linear):
    """o and down: this rank's inputs give a summand of the outputs of all tokens."""

    tensors: TensorGroup

    def forward(self, x_BTF: Tensor) -> Tensor:
        return scatter_sum(F.linear(x_BTF, _own(self)), self.tensors)


class _GatheringNorm(RMSNorm):
    """The norm of this rank's tokens, then those of all ranks."""

    tensors: TensorGroup

    def forward(self, x_BTD: Tensor) -> Tensor:
        return gather_tokens(rms_norm(x_BTD, _own(self, Partial()), self.eps), self.tensors)


class _CutVocabulary(nn.Module):
    """An embedding or output matrix whose rows are cut; where the network asks for the whole, it gets what acts so."""

    def dense(self, dtype: torch.dtype) -> Any:
        return VocabularyShard.of(cast(DTensor, self._parameters["weight"]))


class _CutEmbedding(_CutVocabulary, nn.Embedding):
    tensors: TensorGroup

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return scatter_sum(F.embedding(tokens_BT, self.dense(torch.float32)), self.tensors)


class _CutHead(_CutVocabulary, Linear):
    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.dense(hidden.dtype))


class _SharedScore(Score):
    """The reward's output, of which every rank has all."""

    def forward(self, hidden_BD: Tensor) -> Tensor:
        return F.linear(hidden_BD.float(), _own(self, Partial()).float())


class _SharedTokens(Llama):
    """A network in whose layers a rank has a part of the tokens. Takes and gives whole rows, of any length."""

    tensors: TensorGroup

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        length = tokens_BT.shape[1]
        whole = -(-length // self.tensors.size) * self.tensors.size
        if whole != length:
            tokens_BT = padded(tokens_BT, whole)
            positions_BT = None if positions_BT is None else padded(positions_BT, whole)
            document_ids_BT = None if document_ids_BT is None else padded_documents(document_ids_BT, whole)
        with making_again(everything=False):  # gathered tokens, which are kept as parts
            hidden_BTD = super().forward(
                tokens_BT, positions_BT=positions_BT, document_ids_BT=document_ids_BT, cache=cache
            )
        is_part = self.model._modules.get("norm") is None  # a stage of a pipeline that hands its part on
        return hidden_BTD if is_part else hidden_BTD[:, :length]

    def _layout(
        self, x_BTD: Tensor, positions_BT: Tensor | None, document_ids_BT: Tensor | None, cache: KVCache | None
    ) -> Layout:
        # A layout asks a tensor for its shape and kind only: this one has the length of the rows, and no memory.
        like_BTD = x_BTD[:, :1].expand(-1, x_BTD.shape[1] * self.tensors.size, -1)
        return super()._layout(like_BTD, positions_BT, document_ids_BT, cache)


_COLUMNS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")


def parallelise_tensors(model: nn.Module, mesh: DeviceMesh) -> None:
    """Cut a built model (or a rank's part of one; on the meta device or not) over a one-dimensional mesh, in place.

    Raises SettingError for layers that are not plain matrices: adapters, and bases in eight bits.
    """
    group = TensorGroup(mesh)
    for owner in map(network, (model, *roots_of(model))):
        become(owner, _SharedTokens)
        owner.tensors = group  # type: ignore[assignment]
    for name, module in list(model.named_modules()):
        if isinstance(module, Attention | FeedForward):
            _cut_layers(module, group, name)
        elif isinstance(module, RMSNorm):
            _cut(module, _GatheringNorm, Replicate(), group)
        elif isinstance(module, nn.Embedding):
            _cut(module, _CutEmbedding, Shard(0), group)
    llama = network(model)
    if "lm_head" in llama._modules:
        _plain(llama.lm_head, "lm_head")
        _cut(llama.lm_head, _CutHead, Shard(0), group)
    if isinstance(model, RewardModel) and "score" in model._modules:
        _cut(model.score, _SharedScore, Replicate(), group)


def _cut_layers(module: nn.Module, group: TensorGroup, name: str) -> None:
    for key, layer in module.named_children():
        _plain(layer, f"{name}.{key}")
        if key in _COLUMNS:
            _cut(layer, _ColumnCut, Shard(0), group)
        else:
            _cut(layer, _RowCut, Shard(1), group)


def _plain(layer: nn.Module, name: str) -> None:
    if type(layer).forward is not nn.Linear.forward or list(layer._parameters) != ["weight", "bias"]:
        raise SettingError(
            f"{name} is a {type(layer).__name__}: only plain matrices are cut among tensor ranks",
            where="plan.tp",
            mend="train all weights (--full), or give tp=1 and more data ranks",
        )


def _cut(module: nn.Module, kind: type[nn.Module], placement: Placement, group: TensorGroup) -> None:
    weight = module._parameters["weight"]
    assert weight is not None
    cut = DTensor.from_local(
        _own_part(weight.detach(), placement, group),
        group.mesh,
        [placement],
        run_check=False,
        shape=weight.shape,
        stride=weight.stride(),
    )
    module._parameters["weight"] = nn.Parameter(cut, requires_grad=weight.requires_grad)
    become(module, kind)
    module.tensors = group  # type: ignore[assignment]


def _own_part(whole: Tensor, placement: Placement, group: TensorGroup) -> Tensor:
    """This rank's part: as DTensor cuts, the last ranks of a length that does not divide have less."""
    if not isinstance(placement, Shard):
        return whole.clone()
    size = -(-whole.shape[placement.dim] // group.size)
    rank, length = group.mesh.get_local_rank(), whole.shape[placement.dim]
    start = min(rank * size, length)
    return whole.narrow(placement.dim, start, min(size, length - start)).clone(memory_format=torch.contiguous_format)
