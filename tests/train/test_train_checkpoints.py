"""Checkpoints on disk: any cut read in any other, no damage unseen, written beside training, kept by policy."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
import threading
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train_loop import Notes, Stopped, assert_same_bits, run, weights
from torch.distributed import checkpoint as dcp
from train_models import as_before_manifests, tiny_model, tiny_settings

from herd.errors import ArtifactError, FormatError, StorageError
from herd.train import checkpoints, sharded_files
from herd.train.checkpoints import Checkpoints
from herd.train.sharded_files import write_manifest, write_shards
from herd.train.sharded_shards import Shard
from herd.weights import sharded
from herd.weights.shard_files import ShardFiles
from herd.weights.sharded import read_manifest


def state(step: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(step)
    return {
        "model.model.norm.weight": torch.randn(7, generator=draw),
        "model.lm_head.weight": torch.randn(11, 6, generator=draw).to(torch.bfloat16),
        "optimiser.step.lm_head.weight": torch.tensor(float(step)),
        "rng.0.torch_rng_state": torch.randint(0, 255, (40,), generator=draw, dtype=torch.uint8),
    }


def saved(folder: Path, *steps: int, **policy: int) -> Checkpoints:
    kept = Checkpoints(folder, **{"keep": 3, **policy})
    for step in steps:
        kept.save(step, state(step), {"step": step})
    kept.wait()
    return kept


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def loaded(found: checkpoints.Saved) -> dict[str, torch.Tensor]:
    targets = {name: torch.zeros_like(tensor) for name, tensor in state(0).items()}
    found.load(targets)
    return targets


def cuts(draw: st.DrawFn, length: int) -> list[int]:
    """Borders of a cut of `length`: uneven, some parts empty."""
    return [0, *sorted(draw(st.lists(st.integers(0, length), max_size=3))), length]


@st.composite
def cut_tensors(draw: st.DrawFn) -> tuple[torch.Tensor, list[list[int]]]:
    shape = draw(st.lists(st.integers(1, 9), max_size=3))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.uint8]))
    values = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    return values, [cuts(draw, length) for length in shape]


def boxes(borders: list[list[int]]) -> list[tuple[slice, ...]]:
    return list(product(*([slice(a, b) for a, b in pairwise(one)] for one in borders)))


def shard(name: str, values: torch.Tensor, box: tuple[slice, ...]) -> Shard:
    return Shard(name, tuple(values.shape), tuple(side.start for side in box), values[box].contiguous())


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(cut_tensors(), min_size=1, max_size=3), st.integers(1, 4))
def test_what_any_plan_wrote_any_other_reads(data: st.DataObject, tensors: list, world: int) -> None:
    """Tensors cut along every axis, their parts dealt to ranks; regions cut otherwise, and the whole, come back."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dealt: list[list[Shard]] = [[] for _ in range(world)]
        for number, (values, borders) in enumerate(tensors):
            for box in boxes(borders):
                one = shard(f"model.w{number}", values, box)
                rank = data.draw(st.integers(0, world - 1))
                while any(other.name == one.name for other in dealt[rank]):  # one shard of a tensor a rank
                    dealt.append([])
                    rank = len(dealt) - 1
                if one.local.numel():
                    dealt[rank].append(one)
        (folder / "state.json").write_text("{}")
        written = [write_shards(folder, own, rank, len(dealt)) for rank, own in enumerate(dealt)]
        write_manifest(folder, [file for files in written for file in files])
        files = ShardFiles(folder, read_manifest(folder))
        for number, (values, _) in enumerate(tensors):
            assert torch.equal(files.read(f"model.w{number}"), values)
            for box in boxes([cuts(data.draw, length) for length in values.shape]):
                region = torch.full_like(values[box], 77)
                files.read_into(region, f"model.w{number}", tuple(side.start for side in box))
                assert torch.equal(region, values[box])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_reads_the_folder_too(tmp_path: Path) -> None:
    """torch.distributed.checkpoint's own reader of safetensors, sharded and whole: an independent implementation."""
    values = torch.arange(33.0).reshape(11, 3)
    for world, cut in ((1, [0, 11]), (3, [0, 4, 8, 11])):
        folder = tmp_path / str(world)
        folder.mkdir()
        (folder / "state.json").write_text("{}")
        parts = [shard("model.lm_head.weight", values, box) for box in boxes([cut, [0, 3]])]
        written = [file for rank, one in enumerate(parts) for file in write_shards(folder, [one], rank, world)]
        write_manifest(folder, written)
        target = {"lm_head.weight": torch.zeros(11, 3)}
        reader = dcp.HuggingFaceStorageReader(str(folder))
        dcp.load(target, storage_reader=reader, no_dist=True)
        assert torch.equal(target["lm_head.weight"], values)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_flipped_bit_and_no_cut_goes_unseen(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        kept = saved(folder, 1, 2)
        victim = folder / "step-2" / data.draw(st.sampled_from(names(folder / "step-2")))
        content = bytearray(victim.read_bytes())
        if data.draw(st.booleans()):
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del content[data.draw(st.integers(0, len(content) - 2)) :]  # a last line break may go
        victim.write_bytes(content)
        notes = Notes()
        found = kept.newest(notes)
        assert found is not None
        assert found.step == 1
        assert_same_bits(loaded(found), state(1))
        assert notes.notes[0].startswith("checkpoint step-2 cannot be used: ")
        assert victim.name in notes.notes[0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    kept = saved(tmp_path, 1)
    (tmp_path / "step-1" / "rng.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"step-1 cannot be used: rng\.safetensors is missing"):
        kept.newest(Notes())


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`save` and `staged` return with nothing on the disk; what changes afterwards is not in the checkpoint."""
    gate = threading.Event()
    real = sharded_files.write_shards

    def slow(*arguments):
        assert gate.wait(60)
        return real(*arguments)

    monkeypatch.setattr(checkpoints, "write_shards", slow)
    kept, now = Checkpoints(tmp_path, keep=3), state(1)
    counts = [3]
    kept.save(1, now, {"step": 1, "window": counts})
    kept.staged()
    for tensor in now.values():
        tensor.zero_()
    counts.append(4)
    assert not (tmp_path / "step-1").exists()
    second = threading.Thread(target=kept.save, args=(2, state(2), {"step": 2}))  # waits for the first
    second.start()
    gate.set()
    second.join()
    kept.wait()
    assert names(tmp_path) == ["step-1", "step-2"]
    (tmp_path / "step-2" / "model.safetensors").unlink()
    found = kept.newest(Notes())
    assert found is not None
    assert found.state["window"] == [3]
    assert_same_bits(loaded(found), state(1))


@pytest.mark.parametrize(("code", "said"), [(errno.ENOSPC, "No space left"), (errno.EACCES, "Permission denied")])
def test_the_next_step_learns_that_the_writer_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    """What stood before stands, nothing half-written is left, and the same command goes on later."""
    tiny = tiny_settings(checkpoint_every_steps=2)
    real = sharded_files.write_shards
    steps: list[int] = []

    def refuse(path, *arguments):
        if path.name == ".step-4.part":
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *arguments)

    class Count(Notes):
        def update(self, done, total, unit, facts=None):
            steps.append(int(done))

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "write_shards", refuse)
        with pytest.raises(StorageError, match=said) as caught:
            run(folder, tiny, Count())
    assert "goes on where it stopped" in caught.value.mend
    assert 4 <= steps[-1] < 8
    assert names(folder / "checkpoints") == ["step-2"]
    notes = Notes()
    model, _ = run(folder, tiny, notes)
    assert notes.notes == ["going on from checkpoint step-2"]
    assert_same_bits(weights(model), weights(run(folder.parent / "straight", tiny_settings())[0]))


def test_a_place_that_cannot_hold_checkpoints_is_said(folder: Path) -> None:
    folder.mkdir()
    (folder / "checkpoints").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write a checkpoint") as caught:
        run(folder, tiny_settings(checkpoint_every_steps=2))
    assert "checkpoints" in caught.value.where


def test_an_error_of_the_run_comes_before_one_of_the_writer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_shards", refuse)
    notes = Notes(stop_after=3)
    monkeypatch.setattr(Checkpoints, "failed", property(lambda self: False))  # the writer is slow to fail
    with pytest.raises(Stopped):
        run(folder, tiny_settings(checkpoint_every_steps=2), notes)
    assert notes.notes == ["the last checkpoint is missing: cannot write a checkpoint: No space left on device"]


def test_the_newest_are_kept_and_some_for_good(tmp_path: Path) -> None:
    saved(tmp_path / "a", *range(1, 8), keep=2)
    assert names(tmp_path / "a") == ["step-6", "step-7"]
    saved(tmp_path / "b", *range(1, 12), keep=2, keep_every=4)
    assert names(tmp_path / "b") == ["step-10", "step-11", "step-4", "step-8"]


def test_a_run_writes_what_is_kept_for_good_when_it_is_due(folder: Path) -> None:
    run(folder, tiny_settings(keep=1, keep_every=3))  # neither by steps nor by the clock
    assert names(folder / "checkpoints") == ["step-3", "step-6"]


def test_a_damaged_later_step_does_not_take_the_place_of_a_sound_one(tmp_path: Path) -> None:
    kept = saved(tmp_path, 2, 4, keep=2)
    (tmp_path / "step-4" / "manifest.json").unlink()
    kept = saved(tmp_path, 3, keep=1)  # went on from step 2
    assert names(tmp_path) == ["step-3"]
    found = kept.newest(Notes())
    assert found is not None
    assert found.step == 3


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    kept = saved(tmp_path, 1)
    for left in (".step-2.part", ".step-1.old", ".step-3.4711.part"):
        shutil.copytree(tmp_path / "step-1", tmp_path / left)
    (tmp_path / "notes.txt").write_text("the user's own")
    assert kept.newest(Notes()) is not None
    assert names(tmp_path) == ["notes.txt", "step-1"]


def test_names_and_shapes_have_to_fit(tmp_path: Path) -> None:
    found = saved(tmp_path, 1).newest(Notes())
    assert found is not None
    with pytest.raises(ArtifactError, match=r"model.other is not there in the checkpoint, and \[3\] here"):
        found.load({"model.other": torch.zeros(3)})
    with pytest.raises(ArtifactError, match=r"lm_head.weight is \[11, 6\] in the checkpoint, and \[11, 5\] here"):
        found.load({"model.lm_head.weight": torch.zeros(11, 5)})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_checkpoints_of_herd_0_1_go_on_in_the_same_bits(folder: Path, dtype: str) -> None:
    changes = {"anneal_steps": 4, "dtype": dtype}
    straight, _ = run(folder / "a", tiny_settings(**changes))
    with pytest.raises(Stopped):
        run(folder / "b", tiny_settings(**changes, checkpoint_every_steps=2), Notes(stop_after=7))
    for path in (folder / "b" / "checkpoints").iterdir():
        as_before_manifests(path)
    notes = Notes()
    resumed, _ = run(folder / "b", tiny_settings(**changes), notes, model=tiny_model(seed=5))
    assert notes.notes == ["going on from checkpoint step-6"]
    assert_same_bits(weights(straight), weights(resumed))


def hostile(change) -> str:
    """What is said of a manifest whose digest is right and whose content is `change`d."""
    with tempfile.TemporaryDirectory() as place:
        saved(Path(place), 1)
        path = Path(place) / "step-1" / "manifest.json"
        content = json.loads(path.read_text())
        del content["sha256"]
        change(content)
        path.write_text(sharded._text({**content, "sha256": sharded._digest(content)}))
        with pytest.raises(FormatError) as caught:
            read_manifest(path.parent)
        return caught.value.message


def test_a_strangers_manifest_reaches_nothing_outside_and_claims_no_more_than_its_files(tmp_path: Path) -> None:
    head = "model.lm_head.weight"
    assert "outside of the folder" in hostile(lambda c: c["files"].update({"../../etc/passwd": [1, "0"]}))
    assert "do not make it up" in hostile(lambda c: c["tensors"][head][2].clear())
    assert "do not make it up" in hostile(lambda c: c["tensors"][head][1].__setitem__(0, 10**12))
    assert "do not make it up" in hostile(lambda c: c["tensors"][head][2][0].__setitem__(1, [4, 0]))
    for shape, places in (
        ([4], [[0, [0], [2]], [0, [1], [2]]]),
        ([2, 4], [[0, [0, 0], [1, 4]], [0, [1, 0], [1, 2]], [0, [0, 2], [1, 2]]]),
    ):  # as large together, over one another, with a gap
        overlapping = {"model.x": ["F32", shape, places]}
        assert "do not make it up" in hostile(lambda c, more=overlapping: c["tensors"].update(more))
    assert "too small for the shards" in hostile(
        lambda c: c["tensors"].update({"model.big": ["F32", [10**9], [[0, [0], [10**9]]]]})
    )
    assert "not written as a manifest" in hostile(lambda c: c["tensors"].update({"model.x": ["F32", [-1], []]}))
    assert "not written as a manifest" in hostile(lambda c: c["tensors"].update({"model.x": ["F99", [1], []]}))
    assert "not written as a manifest" in hostile(lambda c: c.pop("files"))
    assert "version 2; this herd reads 1" in hostile(lambda c: c.update(version=2))


def test_equal_states_are_equal_files(tmp_path: Path) -> None:
    saved(tmp_path / "a", 1)
    saved(tmp_path / "b", 1)
    for name in names(tmp_path / "a" / "step-1"):
        assert (tmp_path / "a/step-1" / name).read_bytes() == (tmp_path / "b/step-1" / name).read_bytes(), name
