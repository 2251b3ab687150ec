"""Checkpoints of several processes: any plan to any other, errors and damage agreed on, and killed while writing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from processes import RankError, run_on
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from herd.errors import ArtifactError, StorageError
from herd.train import checkpoints, sharded_dcp
from herd.train.checkpoints import Checkpoints

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

# pp, dp, tp, and whether dp shards (FSDP) or holds replicas; context ranks hold what their dp group holds.
FOUR = {
    "fsdp4": (1, 4, 1, True),
    "tp4": (1, 1, 4, False),
    "fsdp2-tp2": (1, 2, 2, True),
    "dp2-tp2": (1, 2, 2, False),
    "pp2-fsdp2": (2, 2, 1, True),
    "pp2-tp2": (2, 1, 2, False),
}
TWO = {"fsdp2": (1, 2, 1, True), "tp2": (1, 1, 2, False), "pp2": (2, 1, 1, False), "dp2": (1, 2, 1, False)}
SHAPES = {  # few of them divide: a vocabulary of 51, a matrix of fewer rows than ranks
    "model.embed_tokens.weight": (51, 8),
    "model.layers.0.mlp.up_proj.weight": (6, 10),
    "model.layers.1.mlp.down_proj.weight": (10, 7),
    "model.norm.weight": (7,),
    "lm_head.weight": (3, 4),
}


def state(step: int) -> dict[str, Tensor]:
    """Whole tensors with values that tell their place and step: parameters, moments, AdamW's scalars."""
    found = {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        for kind, prefix in enumerate(("model", "optimiser.exp_avg", "average")):
            first = 1e4 * step + 1e3 * number + 1e2 * kind
            found[f"{prefix}.{name}"] = torch.arange(torch.Size(shape).numel()).reshape(shape) + first
        found[f"optimiser.step.{name}"] = torch.tensor(float(step))
    return found


def placed(plan: tuple[int, int, int, bool], step: int = 1) -> dict[str, Tensor]:
    """This rank's tensors under a plan, cut by torch's own FSDP and tensor parallelism."""
    pp, dp, tp, shard = plan
    mesh = init_device_mesh("cpu", (pp, dp, tp), mesh_dim_names=("pp", "dp", "tp"))
    stage = mesh.get_local_rank("pp")
    names = [name for number, name in enumerate(SHAPES) if number % pp == stage]
    found: dict[str, Tensor] = {}
    for name, whole in state(step).items():
        if not any(name.endswith(own) for own in names):
            continue
        tensor = whole
        if tp > 1 and whole.ndim:
            axis = Replicate() if whole.ndim == 1 else Shard(1) if "down_proj" in name else Shard(0)
            tensor = distribute_tensor(whole, mesh["tp"], [axis])
        if shard and whole.ndim:
            module = nn.Module()
            module.weight = nn.Parameter(tensor)
            fully_shard(module, mesh=mesh["dp"])
            tensor = module.weight
        found[name] = tensor.detach()
    return found


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def write(folder: Path, plan: tuple[int, int, int, bool], *steps: int) -> Checkpoints:
    kept = Checkpoints(folder, keep=3)
    for step in steps:
        kept.save(step, placed(plan, step), {"step": step})
    kept.wait()
    return kept


def differences(folder: Path, plan: tuple[int, int, int, bool]) -> list[str]:
    """What is not, bit for bit, as torch cuts it, after loading."""
    targets = placed(plan)
    truth = {name: local(tensor).clone() for name, tensor in targets.items()}
    for tensor in targets.values():
        local(tensor).fill_(-1)
    found = Checkpoints(folder, keep=3).newest(Notes())
    assert found is not None
    shapes = {name: tuple(tensor.shape) for name, tensor in targets.items() if name.startswith("model.")}
    found.check_shapes("model", shapes)
    found.load(targets)
    return [f"{folder.name}: {name}" for name, t in targets.items() if not torch.equal(local(t), truth[name])]


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_any_plan_opens_what_any_other_wrote(tmp_path: Path) -> None:
    """Four processes, then two, then one, then four again; each reads all that was written before."""
    run_on(4, write_all, tmp_path, FOUR)
    assert run_on(2, read_all, tmp_path, TWO) == [[], []]
    run_on(2, write_all, tmp_path, TWO)
    for folder in tmp_path.iterdir():
        targets = {name: torch.full_like(tensor, -1) for name, tensor in state(1).items()}
        found = Checkpoints(folder, keep=3).newest(Notes())
        assert found is not None
        found.load(targets)
        assert [name for name, whole in state(1).items() if not torch.equal(targets[name], whole)] == []
        assert len(list(found.path.glob("model-*.safetensors"))) in (2, 4)
    one = Checkpoints(tmp_path / "one", keep=3)
    one.save(1, state(1), {"step": 1})
    one.wait()
    assert run_on(4, read_all, tmp_path, FOUR) == [[], [], [], []]


def write_all(rank: int, folder: Path, plans: dict[str, tuple[int, int, int, bool]]) -> None:
    for name, plan in plans.items():
        write(folder / name, plan, 1)


def read_all(rank: int, folder: Path, plans: dict[str, tuple[int, int, int, bool]]) -> list[str]:
    written = sorted(folder.iterdir())
    return [fault for one in written for plan in plans.values() for fault in differences(one, plan)]


def test_an_error_or_damage_of_one_rank_is_known_to_all(tmp_path: Path) -> None:
    for said, first, notes, other in run_on(2, spoiled, tmp_path):
        assert said == "StorageError: rank 1 cannot write a checkpoint: No space left on device"
        assert first == ["step-1"]
        assert notes == [
            "checkpoint step-2 cannot be used: optimiser-00001-of-00002.safetensors is damaged or cut short"
        ]
        assert other == "the checkpoint is of a model of another shape"


def spoiled(rank: int, folder: Path) -> tuple[str, list[str], list[str], str]:
    plan = TWO["fsdp2"]
    kept = write(folder, plan, 1)
    real = sharded_dcp.write_shards

    def full(*arguments):
        if rank == 1:
            raise OSError(28, "No space left on device", str(folder))
        return real(*arguments)

    sharded_dcp.write_shards = full
    kept.save(2, placed(plan, 2), {"step": 2})
    try:
        kept.wait()
        said = "nothing"
    except StorageError as error:
        said = f"{type(error).__name__}: {error.message}"
    torch.distributed.barrier()  # rank 0 clears up
    first = sorted(path.name for path in folder.iterdir())
    torch.distributed.barrier()
    sharded_dcp.write_shards = real
    kept.save(2, placed(plan, 2), {"step": 2})
    kept.wait()
    if rank == 0:
        path = folder / "step-2" / "optimiser-00001-of-00002.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    torch.distributed.barrier()
    notes = Notes()
    found = kept.newest(notes)
    assert found is not None
    assert found.step == 1
    try:
        found.check_shapes("model", {"model.lm_head.weight": (3, 4 + rank)})
        other = "nothing"
    except ArtifactError as error:
        other = error.message
    return said, first, notes.notes, other


@pytest.mark.parametrize("where", ["rank 1 writes", "rank 0 finishes", "rank 0 renames"])
def test_killed_while_several_write_the_newest_whole_one_is_used(tmp_path: Path, where: str) -> None:
    with pytest.raises(RankError):
        run_on(2, killed, tmp_path, where, seconds=60)
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {".step-2.part"} == {"step-1"}  # rank 0 clears up where it lives to see rank 1 die
    targets = {name: torch.zeros_like(tensor) for name, tensor in state(1).items()}
    found = Checkpoints(tmp_path, keep=3).newest(Notes())
    assert found is not None
    found.load(targets)
    assert [name for name, whole in state(1).items() if not torch.equal(targets[name], whole)] == []
    assert {path.name for path in tmp_path.iterdir()} == {"step-1"}


def killed(rank: int, folder: Path, where: str) -> None:
    kept = write(folder, TWO["fsdp2"], 1)

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if where == f"rank {rank} writes":
        sharded_dcp.write_shards = die
    elif where == f"rank {rank} finishes":
        checkpoints.write_manifest = die
    elif where == f"rank {rank} renames":
        checkpoints.replace_folder = die
    kept.save(2, placed(TWO["fsdp2"], 2), {"step": 2})
    kept.wait()
