"""The processes of a run: started by torchrun, ordered by the plan into groups that talk along one axis.

    with processes(plan, "auto") as mesh:            # None for a plan of one process
        train(model, ..., mesh=mesh)

torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) says who is here. They talk over NCCL
between CUDA devices, each process with the device of its LOCAL_RANK, and over gloo between CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # it is there
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.rendezvous import rendezvous

from herd.train.batch import Part
from herd.train.parallel.context import ContextGroup
from herd.train.parallel.plan import ORDER, ParallelPlan, Place

MINUTES = 30  # without an answer a collective fails; a first compilation or a slow disk may take minutes


@dataclass(frozen=True)
class Mesh:
    """This process in the plan: its place, its device, and the groups along each axis.

    `data` has the dimensions ("shards", "tp") of this pipeline rank: parameters are cut over the first, which are the
    data and context ranks together, and by tensor ranks over the second.
    """

    plan: ParallelPlan
    rank: int
    device: torch.device
    axes: DeviceMesh = field(repr=False)
    data: DeviceMesh = field(repr=False)

    @staticmethod
    def of(plan: ParallelPlan, device: torch.device) -> Mesh:
        """Order the processes of the default group; all of them call this together."""
        plan.check_world(dist.get_world_size())
        names = tuple(reversed(ORDER))
        grid = torch.arange(plan.world_size).view([getattr(plan, axis) for axis in names])
        axes = DeviceMesh(device.type, grid, mesh_dim_names=names)
        inner = grid.permute([names.index(axis) for axis in ("pp", "dp", "cp", "tp")]).flatten(1, 2)
        whole = DeviceMesh(device.type, inner, mesh_dim_names=("pp", "shards", "tp"))
        return Mesh(plan, dist.get_rank(), device, axes, whole["shards", "tp"])

    @property
    def place(self) -> Place:
        return self.plan.place(self.rank)

    @property
    def is_first(self) -> bool:
        """Whether this process writes and says what the run as a whole has to write and say."""
        return self.rank == 0

    @property
    def part(self) -> Part:
        """This process's rows of a step."""
        return Part(self.place.dp, self.plan.dp)

    def group(self, axis: str) -> dist.ProcessGroup:
        """The processes that differ from this one on `axis` only, in order."""
        return self.axes.get_group(axis)

    @property
    def context(self) -> ContextGroup:
        return ContextGroup(self.group("cp"), multiple=self.plan.tp)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes, the same bits on every one."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        summed: list[float] = total.tolist()
        return summed


@contextmanager
def processes(plan: ParallelPlan, device: str = "auto") -> Iterator[Mesh | None]:
    """The mesh of a plan, its process group started and ended here; None where there is one process only.

    Raises SettingError when torchrun started another number of processes than the plan has.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    plan.check_world(world)
    if world == 1:
        yield None
        return
    own = local_device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    backend = "cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo"
    if not dist.is_initialized():
        _start(backend)
    try:
        yield Mesh.of(plan, own)
    finally:
        dist.destroy_process_group()


def _start(backend: str) -> None:
    """The process group. torchrun has one store for all lives of a job (torch 2.13), where the addresses of dead
    processes still stand: without a prefix for each life a job that was started again would wait for them."""
    store, rank, world = next(iter(rendezvous("env://")))
    life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        backend,
        store=PrefixStore(f"life-{life}", store),
        rank=rank,
        world_size=world,
        timeout=timedelta(minutes=MINUTES),
    )


def local_device(name: str) -> torch.device:
    """The device of this process: of the CUDA devices of a machine, process LOCAL_RANK has the one of that number."""
    wants_cuda = name.startswith("cuda") or (name in ("", "auto") and torch.cuda.is_available())
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if wants_cuda else torch.device("cpu")
