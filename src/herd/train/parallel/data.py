"""Data parallelism: FSDP2 over the data and context ranks, or whole parameters on each and a sum of gradients.

    shard_data(part, mesh, dtype)          # parameters become DTensors: each rank has a shard of each
    shard_data turned off (plan.shard "none"): `sum_gradients(parameters, mesh)` once a step

Parameters are gathered a layer at a time; in `dtype`, where that is not the masters' float32. Gradients of
micro-batches add up in float32 and are reduced in float32 (paper, section 3.3.2), as sums: the step's mean is the
loop's. "keep" holds gathered layers from forward to backward and reduces once a step; "reshard" lets them go after
every use, and reduces at every micro-batch, so that no rank ever holds all gradients.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial

from herd.llama.block import Block
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.stage import roots_of

_BUCKET = 1 << 26  # gradients in one sum: 256 MiB of float32


def shard_data(part: nn.Module, mesh: Mesh, dtype: torch.dtype) -> None:
    """Wrap a model, or the stages of a pipeline rank's part, in place: each layer, then what is left."""
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    again, shards = mesh.plan.shard == "reshard", mesh.data["shards"]
    for root in roots_of(part):
        for module in list(root.modules()):
            if isinstance(module, Block):
                fully_shard(module, mesh=shards, reshard_after_forward=again, mp_policy=policy)
        # The output matrix is used by the loss, after the forward: what a root has stays until its backward.
        fully_shard(root, mesh=shards, reshard_after_forward=False, mp_policy=policy)
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def before_backward(root: nn.Module, last: bool, shard: str) -> None:
    """Tell FSDP whether this is a root's last backward of the step: then gradients are reduced."""
    if isinstance(root, FSDPModule):
        root.set_is_last_backward(last)
        root.set_requires_gradient_sync(last or shard == "reshard")
        root.set_reshard_after_backward(last or shard == "reshard")


def let_go(roots: Iterable[nn.Module]) -> None:
    """Shards only: after forwards without a backward, which would leave gathered weights that grow old."""
    for root in roots:
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def settle_partial(parameter: nn.Parameter) -> None:
    """Sum over tensor ranks the gradient of a parameter that each of them has whole; FSDP does it itself."""
    grad = parameter.grad
    if isinstance(grad, DTensor) and any(isinstance(one, Partial) for one in grad.placements):
        parameter.grad = grad.redistribute(placements=parameter.placements)  # type: ignore[attr-defined]


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter], mesh: Mesh) -> None:
    """Sum gradients over data and context ranks that all have whole parameters, many in one call."""
    grads = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    group, bucket, size = mesh.data.get_group("shards"), list[Tensor](), 0
    for number, grad in enumerate(grads):
        bucket.append(grad)
        size += grad.numel()
        if size >= _BUCKET or number == len(grads) - 1:
            flat = torch.cat([one.flatten() for one in bucket])
            dist.all_reduce(flat, group=group)
            for one, summed in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                one.copy_(summed.view_as(one))
            bucket, size = [], 0


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a DTensor, sharing its memory; a plain tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
