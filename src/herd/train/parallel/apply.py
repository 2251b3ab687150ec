"""The one written order in which a model is made parallel, and the way of its values there and back.

    part = lay_out(model, mesh, objective, settings, weights)     # this rank's shards, filled
    bring_back(part, model, mesh)                                 # what they hold, into the model as it came

The order: cut into stages, tensor ranks, context ranks, recomputation, FP8, compilation, FSDP. Each step sees modules
and parameters as the one before left them. All of it happens to a copy without values (on the meta device), whose
shards are then filled a parameter at a time: the start does not depend on the plan, and no device ever holds the whole.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from herd.llama.block import Block
from herd.train.objectives.terms import Objective
from herd.train.parallel import fp8
from herd.train.parallel.context import parallelise_context
from herd.train.parallel.data import shard_data
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.stage import cut, network, roots_of
from herd.train.parallel.tensor import parallelise_tensors
from herd.train.precision import compute_dtype
from herd.train.recompute import let_compilers_make_again, recompute
from herd.train.settings import TrainSettings
from herd.train.sharded_shards import shard_of


def lay_out(
    model: nn.Module,
    objective: Objective,
    settings: TrainSettings,
    mesh: Mesh,
    weights: Iterable[tuple[str, Tensor]] | None = None,
) -> nn.Module:
    """This rank's part of `model`, laid out by the mesh's plan and filled with the model's values or `weights`."""
    plan = mesh.plan
    plan.check(network(model).config, settings)
    part = arrange(without_values(model, mesh.device), objective, settings, mesh)
    for root in roots_of(part):
        root._apply(partial(_with_memory, device=mesh.device))  # type: ignore[no-untyped-call]
    _fill(part, model.named_parameters() if weights is None else weights)
    return part


def _with_memory(tensor: Tensor, device: torch.device) -> Tensor:
    return torch.empty_like(tensor, device=device) if tensor.is_meta else tensor


def arrange(skeleton: nn.Module, objective: Objective, settings: TrainSettings, mesh: Mesh) -> nn.Module:
    """The order itself, on a model without values."""
    plan = mesh.plan
    part = skeleton
    if plan.pp > 1:
        part = cut(skeleton, plan.stage_layers(network(skeleton).config.n_layers), mesh.place.pp, plan.pp)
    if plan.tp > 1:
        parallelise_tensors(part, mesh.data["tp"])
    for root in roots_of(part):
        llama = network(root)
        if plan.cp > 1:
            parallelise_context(llama, mesh.context, whole_rows=counts_pairs(objective))
        recompute(llama, plan.recompute, plan.recompute_every)  # it replaces layers, and each root has its own list
    if plan.precision == "fp8":
        fp8.convert(part, mesh.device)
    if plan.compile:
        if plan.recompute != "nothing":
            let_compilers_make_again()
        for module in {module for root in roots_of(part) for module in root.modules()}:
            if isinstance(module, Block):
                module.compile()
    if plan.shards > 1:
        shard_data(part, mesh, compute_dtype(settings, mesh.device))
    return part


def counts_pairs(objective: Objective) -> bool:
    """Whether an objective needs whole rows, which context ranks then give it."""
    return objective.unit == "pairs"


def without_values(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy whose parameters are on the meta device; buffers (a frozen base in eight bits) go to `device`."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.to(device)
    return copy.deepcopy(model, memo)


@torch.no_grad()
def _fill(part: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> None:
    own = dict(part.named_parameters())
    missing = set(own)
    for name, whole in weights:
        parameter = own.get(name)
        if parameter is None:
            continue
        shard = shard_of(name, parameter)
        box = tuple(slice(at, at + size) for at, size in zip(shard.offset, shard.local.shape, strict=True))
        shard.local.copy_(whole[box])
        missing.discard(name)
    assert not missing, f"no values for {sorted(missing)}"


@torch.no_grad()
def bring_back(part: nn.Module, model: nn.Module, mesh: Mesh) -> None:
    """Every trained parameter, whole, into `model` on every process, one at a time; not into a model on meta."""
    own = dict(part.named_parameters())
    for name, target in model.named_parameters():
        if target.is_meta or not target.requires_grad:
            continue
        owner = _owner(name in own, mesh)
        whole = _whole(own[name]) if name in own else torch.empty(target.shape, dtype=target.dtype, device=mesh.device)
        if mesh.plan.pp > 1:
            dist.broadcast(whole, group=mesh.group("pp"), group_src=owner)
        target.copy_(whole)


def _owner(mine: bool, mesh: Mesh) -> int:
    """The first pipeline rank that has a parameter."""
    if mesh.plan.pp == 1:
        return 0
    first = torch.tensor(mesh.place.pp if mine else mesh.plan.pp, device=mesh.device)
    dist.all_reduce(first, dist.ReduceOp.MIN, group=mesh.group("pp"))
    return int(first)


def _whole(parameter: Tensor) -> Tensor:
    """All of a parameter; an axis at a time, the shards of a tensor rank's part first."""
    parameter = parameter.detach()
    if not isinstance(parameter, DTensor):
        return parameter.clone()
    if len(parameter.placements) == 2:
        parameter = parameter.redistribute(placements=[Replicate(), _unstrided(parameter.placements[1])])
    return parameter.full_tensor().contiguous()


def _unstrided(placement: Placement) -> Placement:
    return Shard(placement.dim) if isinstance(placement, Shard) else placement
