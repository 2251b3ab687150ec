"""Devices from the command line down to a stage: what is refused, what a stage holds where, what changes no hash."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from adopt_models import save_drawn, shape

from herd.cli import main
from herd.config import override
from herd.devices import device_of
from herd.errors import SettingError
from herd.files import write_jsonl
from herd.recipes import find
from herd.recipes.adopt import find_adoption, in_full
from herd.road.adopt.graph import stages_of
from herd.road.adopt.model import least_bytes, ready
from herd.road.graph import herd_of
from herd.train.optimiser import Optimiser
from herd.weights.build import fitting_dtype, open_for_use
from herd.weights.registry import open_model

SHAPE = shape(dim=64)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    save_drawn(folder / "model", SHAPE)
    talk = [{"role": "user", "content": "after a?"}, {"role": "assistant", "content": "b"}]
    write_jsonl(folder / "talks.jsonl", [{"messages": talk}] * 20)
    write_jsonl(folder / "tasks.jsonl", [])
    return folder


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_a_device_enters_no_hash(place, device):
    recipe = find("pico")
    assert [stage.key for stage in herd_of(override(recipe, [f"device={device}"])).stages] == [
        stage.key for stage in herd_of(recipe).stages
    ]
    adoption = find_adoption("sft")
    keys = [
        stages_of(one, place / "model", place / "talks.jsonl")[-1].key
        for one in (adoption, replace(adoption, device=device))
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:x"])
def test_settings_refuse_names_of_no_device(device):
    for whole in (find("pico"), find_adoption("sft")):
        with pytest.raises(SettingError, match=f"'{device}' is no device"):
            override(whole, [f"device={device}"])


COMMANDS = {
    "chat": ("chat", "MODEL"),
    "evaluate": ("evaluate", "MODEL", "--tasks", "PLACE/tasks.jsonl"),
    "train": ("train", "adopt-sft", "--model", "MODEL", "--data", "PLACE/talks.jsonl", "--out", "OUT"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_absent_device_is_refused_before_any_work(place, tmp_path, capsys, command):
    words = [
        word.replace("MODEL", str(place / "model")).replace("PLACE", str(place)).replace("OUT", str(tmp_path / "out"))
        for word in COMMANDS[command]
    ]
    assert main([*words, "--device", "cuda:3"]) == 13
    told = capsys.readouterr()
    assert "herd: there is no cuda:3" in told.err
    assert "mend: install a build of torch for CUDA" in told.err or "give cuda:0" in told.err
    assert main([*words, "--device", "tpu"]) == 2
    assert "give auto, cpu, cuda or cuda:N" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_model_without_a_gpu_opens_on_the_cpu_and_says_so(place):
    said = []
    model, _ = open_for_use(place / "model", "auto", said.append)
    assert device_of(model).type == "cpu"
    assert said[0].startswith("computes on the CPU: ")


@pytest.mark.parametrize(
    ("capability", "expected"), [((9, 0), torch.bfloat16), ((7, 5), torch.float32)], ids=["Hopper", "Turing"]
)
def test_a_gpu_keeps_the_files_bfloat16_where_it_multiplies_it(place, monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**34, 2**35))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    assert fitting_dtype(open_model(place / "model"), torch.device("cuda:0")) == expected


def held(model):
    return [*model.parameters(), *model.buffers()]


@pytest.mark.parametrize("base", ["plain", "fp8", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adopted_model_is_whole_on_its_device(place, base, dtype, monkeypatch):
    monkeypatch.setattr(torch, "isfinite", lambda weight: torch.ones(1))  # the one value that is read on the way
    adoption = override(find_adoption("sft"), [f"base={base}", f"train.dtype={dtype}", "train.seq_len=64"])
    model = ready(adoption, place / "model", torch.device("meta"))
    assert {tensor.device.type for tensor in held(model)} == {"meta"}


CASES = {
    "full, float32": ("plain", "float32", True),
    "full, bfloat16": ("plain", "bfloat16", True),
    "adapter, float32": ("plain", "float32", False),
    "adapter, bfloat16": ("plain", "bfloat16", False),
    "adapter over fp8": ("fp8", "bfloat16", False),
    "adapter over int8": ("int8", "bfloat16", False),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_training_is_sure_to_take_is_a_bound_and_not_far_below(place, case):
    base, dtype, full = CASES[case]
    adoption = override(find_adoption("sft"), [f"base={base}", f"train.dtype={dtype}", "train.seq_len=64"])
    adoption = in_full(adoption) if full else override(adoption, ["adapter.rank=1"])
    model = ready(adoption, place / "model", torch.device("cpu"))
    optimiser = Optimiser(model, adoption.train)
    own = {id(tensor): tensor for module in (model, optimiser.compute) for tensor in held(module)}
    learns = sum(param.nbytes for param in optimiser.masters.values())
    taken = sum(tensor.nbytes for tensor in own.values()) + 3 * learns  # gradients and two moments
    assert 0.5 * taken < least_bytes(adoption, SHAPE) <= taken
