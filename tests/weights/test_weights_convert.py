"""Conversion as a whole: killed and resumed, two at once, never half a folder, and bounded memory (slow)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from herd.errors import BusyError, InputError, StorageError
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.weights import convert as conversion
from herd.weights import pth, tensors
from herd.weights.convert import convert, write_stored
from herd.weights.formats import WriteOptions
from herd.weights.hf import save_model
from herd.weights.registry import find_format, open_model
from herd.weights.staging import staged
from herd.weights.stored import StoredModel, expected_shapes
from herd.weights.tensors import Entry, write_tensors
from stored_models import files

CONFIG = LlamaConfig(64, 32, 3, 4, 2, 48)
RAW_BYTES = tensors.raw_bytes


@pytest.fixture
def folder(tmp_path):
    model = Llama(CONFIG)
    init_weights(model, 0)
    save_model(tmp_path / "hf", model, CONFIG, herd={})
    return tmp_path / "hf"


class Killed(BaseException):
    """As the process would end: nothing gets to tidy up."""


def counting(monkeypatch, stop_after):
    """Count every tensor that is written; raise Killed at the one after `stop_after`."""
    written = []

    def raw_bytes(entry):
        if len(written) == stop_after:
            raise Killed
        written.append(entry.name)
        return RAW_BYTES(entry)

    monkeypatch.setattr(tensors, "raw_bytes", raw_bytes)
    monkeypatch.setattr(pth, "raw_bytes", raw_bytes)
    return written


CASES = [
    ("hf", WriteOptions()),
    ("hf", WriteOptions(max_shard_bytes=9_000)),
    ("meta", WriteOptions()),
    ("meta", WriteOptions(model_parallel=2)),
]


@pytest.mark.parametrize(("to", "options"), CASES, ids=["hf", "hf-shards", "meta", "meta-2"])
@pytest.mark.parametrize("stop_after", [0, 1, 7, 20])
def test_killed_and_resumed_gives_the_same_files(folder, tmp_path, monkeypatch, to, options, stop_after):
    convert(folder, tmp_path / "whole", to=to, options=options)
    monkeypatch.setattr(tensors, "SYNC_BYTES", 1)
    monkeypatch.setattr(pth, "SYNC_BYTES", 1)
    counting(monkeypatch, stop_after)
    with pytest.raises(Killed):
        convert(folder, tmp_path / "made", to=to, options=options)
    assert not (tmp_path / "made").exists()
    again = counting(monkeypatch, -1)
    convert(folder, tmp_path / "made", to=to, options=options)
    ranks = options.model_parallel if to == "meta" else 1
    assert len(again) == CONFIG.tensors() * ranks - stop_after  # nothing is written twice
    assert files(tmp_path / "made").keys() == files(tmp_path / "whole").keys()
    before, after = open_model(tmp_path / "whole"), open_model(tmp_path / "made")
    for name, entry in before.tensors.items():
        assert torch.equal(entry.values(), after.tensors[name].values()), name
    if to == "hf":
        assert files(tmp_path / "made") == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "made", "whole"]


def test_a_part_written_after_the_last_mark_is_thrown_away(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pth, "SYNC_BYTES", 1)
    counting(monkeypatch, 9)
    with pytest.raises(Killed):
        convert(folder, tmp_path / "made", to="meta")
    (part,) = (tmp_path / ".made.converting").glob("*.pth")
    with open(part, "ab") as handle:
        handle.write(b"half a tensor" * 100)
    monkeypatch.undo()
    convert(folder, tmp_path / "made", to="meta")
    state = torch.load(tmp_path / "made" / "consolidated.00.pth", weights_only=True, mmap=True)
    assert len(state) == CONFIG.tensors()
    assert all(tensor.data_ptr() % 64 == 0 for tensor in state.values())


def half_a_note(out):
    out.mark("model", 1)
    for name in ("..herd-progress.json.7.part", ".config.json.7.part"):
        (out.path / name).write_text("{")
    raise Killed


def test_half_a_note_of_the_journal_does_not_stay(tmp_path):
    """SIGKILL may hit while a small file is written beside its place."""
    with pytest.raises(Killed), staged(tmp_path / "made", {}) as out:
        half_a_note(out)
    with staged(tmp_path / "made", {}) as out:
        assert out.done("model") == 1
        assert [path.name for path in out.path.iterdir()] == [".herd-progress.json"]


@pytest.mark.parametrize("change", ["options", "source"])
def test_another_plan_starts_anew(folder, tmp_path, monkeypatch, change):
    monkeypatch.setattr(tensors, "SYNC_BYTES", 1)
    counting(monkeypatch, 9)
    with pytest.raises(Killed):
        convert(folder, tmp_path / "made", to="hf")
    if change == "source":
        os.utime(folder / "model.safetensors", (1, 1))
    again = counting(monkeypatch, -1)
    convert(folder, tmp_path / "made", to="hf", options=WriteOptions(dtype="f32" if change == "options" else ""))
    assert len(again) == CONFIG.tensors()


def test_an_error_leaves_nothing_behind_and_a_full_disk_leaves_what_is_written(folder, tmp_path, monkeypatch):
    model = open_model(folder)
    names = list(model.tensors)

    def broken(error):
        def values():
            raise error

        entry = model.tensors[names[5]]
        changed = {**model.tensors, names[5]: Entry(entry.name, entry.shape, entry.dtype, values)}
        return StoredModel(model.path, model.config, changed)

    hf, silent = find_format("hf"), conversion.Silent()
    with pytest.raises(InputError, match="odd"):
        write_stored(broken(InputError("odd")), tmp_path / "made", hf, WriteOptions(), silent)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    with pytest.raises(StorageError):
        write_stored(broken(OSError(28, "No space left on device")), tmp_path / "made", hf, WriteOptions(), silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".made.converting", "hf"]


def test_two_at_once(folder, tmp_path):
    with staged(tmp_path / "made", {}), pytest.raises(BusyError, match="another process"):
        convert(folder, tmp_path / "made", to="hf")


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_stands_at_the_target_is_never_replaced(folder, tmp_path, there):
    target = tmp_path / "mine"
    target.write_text("text") if there == "file" else (target.mkdir(), (target / "a").write_text("text"))
    with pytest.raises(InputError, match="not replaced"):
        convert(folder, target, to="hf")


def test_a_place_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "made", tmp_path / ("long" * 64)):
        with pytest.raises(StorageError, match="cannot write here"):
            convert(folder, target, to="hf")


def test_a_target_inside_the_source_is_resumed_too(folder, monkeypatch):
    """As on the hub: FOLDER/original. The lock that a kill leaves in the source does not make it another source."""
    monkeypatch.setattr(pth, "SYNC_BYTES", 1)
    counting(monkeypatch, 9)
    with pytest.raises(Killed):
        convert(folder, folder / "original", to="meta")
    (folder / ".original.converting.lock").write_text("")
    again = counting(monkeypatch, -1)
    convert(folder, folder / "original", to="meta")
    assert len(again) == CONFIG.tensors() - 9


def test_an_empty_folder_may_be_filled(folder, tmp_path):
    (tmp_path / "made").mkdir()
    convert(folder, tmp_path / "made", to="hf")
    assert open_model(tmp_path / "made").config == CONFIG


# the real sizes, in processes of their own

WIDE = LlamaConfig(128_256, 4096, 4, 32, 8, 14_336)  # 8B with fewer layers: 3.8 GB
LARGEST = 128_256 * 4096 * 2
CHILD = """
import sys, threading, time
peak = 0
def watch():
    global peak
    while True:
        with open("/proc/self/status") as status:
            peak = max(peak, next(int(line.split()[1]) for line in status if line.startswith("RssAnon")))
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
from herd.cli import main
code = main(sys.argv[1:])
print("PEAK", peak * 1024)
sys.exit(code)
"""


def herd(*arguments):
    return [sys.executable, "-c", CHILD, *map(str, arguments)]


def peak_of(*arguments):
    """Bytes of anonymous memory at the peak. Mapped pages of files are not counted: the kernel takes them back."""
    done = subprocess.run(herd(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rsplit("PEAK", 1)[1])


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """An 8B-shaped checkpoint in BF16. Values repeat after 4 million, which no conversion can profit from."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    folder = tmp_path_factory.mktemp("wide")
    bank = torch.randn(2**22, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()

    def values(shape):
        count = torch.Size(shape).numel()
        return bank.repeat(-(-count // len(bank)))[:count].view(shape)

    shapes = expected_shapes(WIDE)
    entries = [Entry(name, shape, torch.bfloat16, lambda s=shape: values(s)) for name, shape in shapes.items()]
    (folder / "hf").mkdir()
    write_tensors(folder / "hf", entries, 5 * 2**30)
    from herd.weights.config_json import to_hf

    (folder / "hf" / "config.json").write_text(json.dumps(to_hf(WIDE, "bfloat16", bos=128_000, eos=[128_001])))
    assert asdict(open_model(folder / "hf").config) == asdict(WIDE)
    return folder


@pytest.mark.slow
def test_memory_is_bounded_by_the_largest_tensor(wide):
    bound = LARGEST + 2 * 2**30
    assert 2 * WIDE.parameters() > 1.15 * bound  # a model held whole would be seen
    to_meta = peak_of("convert", wide / "hf", wide / "meta", "--to", "meta", "--model-parallel", 2)
    back = peak_of("convert", wide / "meta", wide / "back", "--to", "hf")
    first, second = open_model(wide / "hf"), open_model(wide / "back")
    for name in first.tensors:
        assert torch.equal(first.tensors[name].values(), second.tensors[name].values()), name
    for folder in ("meta", "back"):
        shutil.rmtree(wide / folder)
    quantised = peak_of("quantize", wide / "hf", wide / "fp8")
    shutil.rmtree(wide / "fp8")
    print(f"peaks in GB: to meta {to_meta / 1e9:.2f}, back {back / 1e9:.2f}, quantise {quantised / 1e9:.2f}")
    assert max(to_meta, back, quantised) < bound


@pytest.mark.slow
def test_killed_for_real_and_resumed(wide):
    """SIGKILL when two thirds are written; the second run takes up what is there."""
    target, aside = wide / "killed", wide / ".killed.converting"
    child = subprocess.Popen(herd("convert", wide / "hf", target, "--to", "meta"), stdout=subprocess.DEVNULL)
    part = aside / "consolidated.00.pth"
    while child.poll() is None and not (part.exists() and part.stat().st_size > 1.3 * WIDE.parameters()):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not target.exists()
    kept = json.loads((aside / ".herd-progress.json").read_text())["done"]["consolidated.00.pth"]
    assert kept["written"] > 0
    peak_of("convert", wide / "hf", target, "--to", "meta")
    first, second = open_model(wide / "hf"), open_model(target)
    for name in first.tensors:
        assert torch.equal(first.tensors[name].values(), second.tensors[name].values()), name
    assert not aside.exists()
