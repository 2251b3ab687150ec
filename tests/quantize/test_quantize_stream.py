"""Quantising without a network gives the bits of quantising one."""

import json
from dataclasses import replace

import pytest
import torch

from herd.cli import main
from herd.errors import InputError, NoEffectError
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.quantize import stream
from herd.quantize.fp8 import quantize_model, save_fp8
from herd.quantize.settings import Fp8Policy
from herd.weights.convert import convert
from herd.weights.hf import load_model, save_model
from herd.weights.registry import open_model
from herd.weights.tensors import SINGLE
from herd.weights.widen import fp8_names, widened

CONFIG = LlamaConfig(61, 32, 4, 4, 2, 48)


@pytest.fixture
def folder(tmp_path):
    model = Llama(CONFIG)
    init_weights(model, 0)
    save_model(tmp_path / "m", model, CONFIG, herd={"lineage": 1})
    return tmp_path / "m"


def test_the_same_bits_as_from_a_network(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stream, "_CHUNK", 5 * 32)  # rows in uneven pieces
    assert main(["quantize", str(folder), str(tmp_path / "a")]) == 0
    model = load_model(folder)
    report = quantize_model(model)
    save_fp8(tmp_path / "b", model, herd={}, report=report)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(p.name for p in (tmp_path / "b").iterdir())
    first, second = (open_model(tmp_path / name) for name in "ab")
    assert first.config == second.config
    assert first.tensors.keys() == second.tensors.keys()
    for name, entry in first.tensors.items():
        assert torch.equal(entry.values().view(torch.uint8), second.tensors[name].values().view(torch.uint8)), name
    assert (tmp_path / "a" / "config.json").read_text() == (tmp_path / "b" / "config.json").read_text()
    ours = json.loads((tmp_path / "a" / "herd.json").read_text())
    theirs = json.loads((tmp_path / "b" / "herd.json").read_text())["fp8"]["report"]
    assert ours["lineage"] == 1
    assert ours["fp8"]["activation_bound"] == 1200.0
    assert (ours["fp8"]["report"]["bytes_before"], ours["fp8"]["report"]["bytes_after"]) == (
        theirs["bytes_before"],
        theirs["bytes_after"],
    )
    for one, other in zip(ours["fp8"]["report"]["tensors"], theirs["tensors"], strict=True):
        assert one["name"] == other["name"]
        assert one["relative_error"] == pytest.approx(other["relative_error"], rel=1e-4)
    assert "less; worst error" in capsys.readouterr().out


def test_from_metas_layout_too(folder, tmp_path):
    convert(folder, tmp_path / "meta", to="meta")
    assert main(["quantize", str(tmp_path / "meta"), str(tmp_path / "a")]) == 0
    assert main(["quantize", str(folder), str(tmp_path / "b")]) == 0
    assert (tmp_path / "a" / SINGLE).read_bytes() == (tmp_path / "b" / SINGLE).read_bytes()


def test_back_to_bf16_is_the_nearest_number(folder):
    narrow = stream.quantised(open_model(folder))
    wide = widened(narrow, fp8_names(narrow))
    assert not wide.is_fp8
    assert wide.tensors.keys() == open_model(folder).tensors.keys()
    name = "model.layers.1.mlp.up_proj.weight"
    exact = narrow.tensors[name].values().double() * narrow.tensors[name + "_scale"].values().double()
    assert torch.equal(wide.tensors[name].values(), exact.float().bfloat16())


def test_what_cannot_be_quantised(folder, tmp_path):
    model = open_model(folder)
    with pytest.raises(InputError, match="quantised already"):
        stream.quantised(stream.quantised(model))
    with pytest.raises(NoEffectError, match="selects no layer of 4"):
        stream.quantised(model, Fp8Policy(keep_first=2, keep_last=2))
    name = "model.layers.2.mlp.down_proj.weight"
    bad = model.tensors[name].values().clone()
    bad[3, 3] = torch.nan
    tensors = {**model.tensors, name: replace(model.tensors[name], values=lambda: bad)}
    narrow = stream.quantised(replace(model, tensors=tensors))
    with pytest.raises(InputError, match=r"NaN or infinity.*layers\.2\.mlp\.down_proj"):
        narrow.tensors[name].values()


def test_nothing_is_replaced(folder, tmp_path, capsys):
    assert main(["quantize", str(folder), str(folder)]) == 3
    assert "it is not replaced" in capsys.readouterr().err
