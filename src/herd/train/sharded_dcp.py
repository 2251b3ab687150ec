"""Several processes write one checkpoint: torch.distributed.checkpoint decides who writes what, `sharded_files` how.

What several ranks hold alike (replicas, norms under tensor parallelism) is written once, dealt out evenly by bytes;
torch's planner also proves that the shards fill every tensor. Its storage layer is replaced: safetensors that are
hashed as they are written, and a manifest, where torch would write pickles.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Size
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from herd.errors import HerdError, StorageError
from herd.train.sharded_files import Written, refused, write_shards
from herd.train.sharded_ranks import Ranks
from herd.train.sharded_shards import Shard


def save_together(
    folder: Path,
    shards: Sequence[Shard],
    ranks: Ranks,
    begin: Callable[[], None],
    finish: Callable[[list[Written]], None],
) -> None:
    """Every rank's shards into `folder`. Rank 0 calls `begin` before anybody writes, and `finish` after everybody has.

    An error of any rank is raised on all of them, and names the rank.
    """
    writer = _Writer(folder, ranks, begin, finish)
    try:
        save(
            {shard.name: shard for shard in shards},
            storage_writer=writer,
            planner=_Planner(flatten_state_dict=False, flatten_sharded_tensors=False),
            process_group=ranks.group,
        )
    except CheckpointException as error:
        raise _told(error, folder) from error


def _told(failed: CheckpointException, folder: Path) -> Exception:
    """The first rank's error as one that a user can act on."""
    rank, (error, _) = min(failed.failures.items())
    if isinstance(error, HerdError):
        return type(error)(f"rank {rank}: {error.message}", where=error.where, mend=error.mend)
    if isinstance(error, OSError):
        return refused(error, folder, f"rank {rank} ")
    return RuntimeError(str(failed))


class _Planner(DefaultSavePlanner):
    """torch's planner over `Shard`s, which are CPU copies: no DTensor need be made of them again."""

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan([_item(shard) for shard in self.state_dict.values()])
        return self.plan


def _item(shard: Shard) -> WriteItem:
    offset, size = Size(shard.offset), shard.local.shape
    data = TensorWriteData(
        chunk=ChunkStorageMetadata(offset, size),
        properties=TensorProperties(dtype=shard.local.dtype),
        size=Size(shard.whole),
    )
    return WriteItem(MetadataIndex(shard.name, offset), WriteItemType.SHARD, tensor_data=data)


class _Writer(StorageWriter):
    """The calls in the order that torch makes them: set up, plans, data on every rank, finish on rank 0."""

    def __init__(
        self, folder: Path, ranks: Ranks, begin: Callable[[], None], finish: Callable[[list[Written]], None]
    ) -> None:
        self._folder, self._ranks, self._begin, self._finish = folder, ranks, begin, finish

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        pass

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator:
            self._begin()

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        if not self._folder.is_dir():
            raise StorageError(
                "this rank does not see the folder that rank 0 made for the checkpoint",
                where=str(self._folder),
                mend="all ranks write into one folder: put the run on a disk that every machine shares",
            )
        assert isinstance(planner, DefaultSavePlanner)
        own = [planner.state_dict[item.index.fqn] for item in plan.items]
        written = write_shards(self._folder, own, self._ranks.rank, self._ranks.world)
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(MetadataIndex(file.name), file.sum.n_bytes, file) for file in written])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        self._finish([result.storage_data for own in results for result in own])

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True
