"""What a plan costs a rank: bytes by part and bytes sent a step, of the model itself, built without memory.

    for line in told(estimate(llama31_405b(), plan, settings)): print(line)

The model is built on the meta device and laid out by the same code as for training, among processes that do not exist
(torch's "fake" group), once for each pipeline rank. Parameters are counted there; activations are what autograd keeps
of one micro-batch in each stage, attention counted as torch's GPU kernels keep it (no scores), and how much of it is
there at one time follows from the pipeline's schedule (account.py). Not counted: masks of packed documents, what a
step's largest temporaries, the allocator and the communication library take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from herd.errors import SettingError
from herd.llama.config import LlamaConfig
from herd.llama.model import Llama
from herd.llama.remade import OBSERVER
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.parallel.account import Holding, by_stage, held, loss_bytes, peak
from herd.train.parallel.apply import arrange
from herd.train.parallel.data import local
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.plan import ParallelPlan
from herd.train.parallel.schedule import Schedule
from herd.train.parallel.stage import LlamaStage, network, roots_of
from herd.train.settings import TrainSettings

_FLOAT32 = 4


@dataclass(frozen=True)
class RankBytes:
    """Bytes of one process of pipeline rank `pp`, the fullest of its group."""

    pp: int
    parameters: int  # float32 masters, a shard, and the layers gathered for computing
    gradients: int
    optimiser: int
    activations: int
    sent: dict[str, int]  # in a step, by axis

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimiser + self.activations


def estimate(config: LlamaConfig, plan: ParallelPlan, settings: TrainSettings) -> list[RankBytes]:
    """One entry for each pipeline rank. Raises SettingError where the plan does not fit."""
    plan.check(config, settings)
    # Data ranks are alike, so they are arithmetic; the others cut what is built.
    inner = replace(plan, dp=1, shard="none", compile=False, precision="dtype")
    found = []
    for pp in range(plan.pp):
        with _nobody(inner, pp) as mesh:
            with torch.device("meta"):
                model = Llama(config)
            found.append(_rank(arrange(model, LanguageModelling(), settings, mesh), plan, settings, pp))
    return found


@contextmanager
def _nobody(plan: ParallelPlan, pp: int) -> Iterator[Mesh]:
    """A mesh of processes that do not exist, seen from the first one of a pipeline rank."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise SettingError("an estimate is made by one process", mend="run --dry-run without torchrun")
    rank = plan.rank(replace(plan.place(0), pp=pp))
    dist.init_process_group("fake", rank=rank, world_size=plan.world_size, store=FakeStore())
    try:
        yield Mesh.of(plan, torch.device("cpu"))
    finally:
        dist.destroy_process_group()


def _rank(part: nn.Module, plan: ParallelPlan, settings: TrainSettings, pp: int) -> RankBytes:
    width = 2 if settings.dtype != "float32" else _FLOAT32
    shapes = [local(parameter).shape for parameter in part.parameters()]
    whole = sum(shape.numel() for shape in shapes)
    shard = sum(-(-shape[0] // plan.shards) * shape[1:].numel() for shape in shapes)
    layer = max(_numel(block) for block in network(part).model.layers)
    found = held(plan, Holding(whole, shard, layer + _rest(part)), width)
    rows = -(-settings.rows_per_step // plan.dp)
    per = min(settings.rows_per_microbatch, rows)
    schedule = Schedule(plan.pp, -(-rows // per), plan.virtual, plan.consecutive)
    kept = by_stage(schedule, pp, _activations(part, plan, per, settings.seq_len, width))
    tokens = per * settings.seq_len // plan.cp
    return RankBytes(
        pp,
        parameters=int(found.parameters),
        gradients=int(found.gradients),
        optimiser=int(found.optimiser),
        activations=int(peak(schedule, kept, pp)),
        sent=_sent(network(part).config, part, plan, schedule.microbatches, tokens, width, whole, pp),
    )


def _numel(module: nn.Module) -> int:
    return sum(local(parameter).numel() for parameter in module.parameters())


def _rest(part: nn.Module) -> int:
    """What is in no layer: embedding, last norm, output matrix."""
    return _numel(part) - sum(_numel(block) for block in network(part).model.layers)


def _activations(part: nn.Module, plan: ParallelPlan, rows: int, length: int, width: int) -> list[float]:
    """What is kept of one micro-batch in each stage of this rank, parameters aside, and what stages share once."""
    found: list[float] = []
    alive: list[Tensor] = []  # so that no other storage takes the place of one that was seen
    dtype = torch.bfloat16 if width == 2 else torch.float32
    tokens_BT = torch.zeros(rows, length // plan.cp, dtype=torch.int64, device="meta")
    layout = None
    for root in roots_of(part):
        root.to(dtype)
    seen = {_storage(local(parameter)) for root in roots_of(part) for parameter in root.parameters()}
    for stage in roots_of(part):
        llama = network(stage)
        if isinstance(llama, LlamaStage):
            arrived = torch.zeros(rows, tokens_BT.shape[1] // plan.tp, llama.config.dim, dtype=dtype, device="meta")
            llama.receive(arrived.requires_grad_(), layout)
        with _counting(seen) as kept:
            stage(tokens_BT, positions_BT=tokens_BT)
        last = llama.model._modules.get("norm") is not None
        alive += kept
        found.append(sum(map(_bytes, kept)) + last * loss_bytes(llama.config, plan.tp, tokens_BT.numel(), width))
        if isinstance(llama, LlamaStage) and not llama.first:
            layout = llama.layout
    return found


@contextmanager
def _counting(seen: set[int]) -> Iterator[list[Tensor]]:
    """What autograd keeps in a forward, each storage that was not `seen` once."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        plain = local(tensor)
        if _storage(plain) not in seen:
            seen.add(_storage(plain))
            kept.append(plain)
        return tensor

    before = OBSERVER.set(keep)  # what is made again has hooks of its own within these
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _NoScores():
            yield kept
    finally:
        OBSERVER.reset(before)


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class _NoScores(TorchFunctionMode):
    """Attention keeps what a GPU's kernels keep: its inputs, its output and a number a query and head."""

    def __torch_function__(self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            return _KeepsNoScores.apply(*args[:3])  # type: ignore[no-untyped-call]
        return function(*args, **(kwargs or {}))


class _KeepsNoScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> None:
        raise AssertionError("nothing is computed here")


def _sent(
    config: LlamaConfig,
    part: nn.Module,
    plan: ParallelPlan,
    microbatches: int,
    tokens: int,
    width: int,
    whole: int,
    pp: int,
) -> dict[str, int]:
    """Bytes that a rank sends in a step, by axis; a ring sends (n - 1) / n of what it gathers or reduces."""
    layers = sum(1 for block in network(part).model.layers if _numel(block))
    hidden = tokens * config.dim * width
    again = {"layer": 1.5, "mlp": 1.25}.get(plan.recompute, 1.0)  # of the forward's half
    keys = 2 * tokens * config.kv_dim // plan.tp
    keys_again = 1.0 if plan.recompute == "nothing" else 2.0
    borders = plan.virtual * 2 - (pp == 0) - (pp == plan.pp - 1)
    sent = {
        "tp": int(microbatches * layers * 10 * hidden * again * (plan.tp - 1) / plan.tp),
        "cp": int(microbatches * layers * keys * (plan.cp - 1) * (width * keys_again + _FLOAT32)),
        "pp": microbatches * borders * hidden // plan.tp if plan.pp > 1 else 0,
    }
    times = microbatches if plan.shard == "reshard" else 1
    share = (plan.shards - 1) / plan.shards
    gathers = whole * width * share * (2 * times if plan.shard == "reshard" else 1)
    everything = plan.dp * plan.cp
    replicas = 2 * whole * _FLOAT32 * (everything - 1) / everything
    sent["dp"] = int(replicas if plan.shard == "none" else gathers + whole * _FLOAT32 * share * times)
    return sent


def told(found: Sequence[RankBytes]) -> list[str]:
    """The estimate in lines: the fullest pipeline rank, and what it sends."""
    fullest = max(found, key=lambda one: one.total)
    where = f" (pipeline rank {fullest.pp} of {len(found)})" if len(found) > 1 else ""
    parts = ("parameters", "gradients", "optimiser", "activations")
    memory = ", ".join(f"{name} {_size(getattr(fullest, name))}" for name in parts)
    sent = ", ".join(f"{axis} {_size(size)}" for axis, size in fullest.sent.items() if size) or "nothing"
    return [f"memory   {_size(fullest.total)} a process{where}: {memory}", f"sent     a process and step: {sent}"]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.4g} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"
