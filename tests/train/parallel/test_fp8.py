"""FP8 training: where it is refused, and which matrices torchao is told to replace. What it computes needs a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from cases import cases
from torch import nn
from train_models import tiny_model

from herd.errors import DeviceError, MissingExtraError, SettingError
from herd.train.parallel import fp8
from herd.train.parallel.stage import cut, roots_of
from herd.train.recompute import recompute
from herd.weights.lora import attach
from herd.weights.settings import LoraSettings

GPU = torch.device("cuda")
MATRICES = {f"self_attn.{name}_proj" for name in "qkvo"} | {f"mlp.{name}_proj" for name in ("gate", "up", "down")}


class Float8Linear(nn.Linear):
    """What torchao puts in the place of a matrix."""


def replace_all(model: nn.Module, config: object, module_filter_fn: Callable[[nn.Module, str], bool]) -> None:
    """As torchao goes about it: every module that the filter wants is replaced in its parent."""
    for name, module in list(model.named_modules()):
        if module_filter_fn(module, name):
            parent, _, leaf = name.rpartition(".")
            with torch.device("meta"):
                setattr(model.get_submodule(parent), leaf, Float8Linear(module.in_features, module.out_features))


@pytest.fixture
def torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(from_recipe_name=lambda name: name)
    stub = SimpleNamespace(Float8LinearConfig=config, convert_to_float8_training=replace_all)
    monkeypatch.setitem(sys.modules, "torchao", SimpleNamespace(float8=stub))
    monkeypatch.setitem(sys.modules, "torchao.float8", stub)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))


def converted(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, Float8Linear)}


def test_a_device_without_fp8_units_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="cpu has no units for FP8 training") as refused:
        fp8.convert(tiny_model(), torch.device("cpu"))
    assert "precision=dtype" in refused.value.mend
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(DeviceError, match="cuda has no units"):
        fp8.convert(tiny_model(), GPU)


def test_without_torchao_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(MissingExtraError, match="torchao"):
        fp8.convert(tiny_model(), GPU)


def test_adapters_are_refused(torchao: None) -> None:
    model = tiny_model()
    attach(model, LoraSettings(rank=2))
    with pytest.raises(SettingError, match="training all weights"):
        fp8.convert(model, GPU)


@pytest.mark.parametrize("tied", [False, True])
def test_the_matrices_of_all_layers_are_replaced_and_nothing_else(torchao: None, tied: bool) -> None:
    model = tiny_model(tie_embeddings=tied)
    fp8.convert(model, GPU)
    assert converted(model) == {f"model.layers.{n}.{name}" for n in range(2) for name in MATRICES}


def test_a_reward_model_keeps_its_score(torchao: None) -> None:
    model = next(case for case in cases() if case.name == "reward").model()
    fp8.convert(model, GPU)
    assert converted(model) == {f"llama.model.layers.{n}.{name}" for n in range(4) for name in MATRICES}


def test_the_stages_of_a_pipeline_rank_compute_with_what_was_replaced(torchao: None) -> None:
    part = cut(tiny_model(n_layers=4), (1, 1, 1, 1), rank=1, pp=2)
    for root in roots_of(part):
        recompute(root, "mlp")
    fp8.convert(part, GPU)
    assert converted(part) == {f"model.layers.{n}.{name}" for n in (1, 3) for name in MATRICES}
    for layer, root in zip((1, 3), roots_of(part), strict=True):
        assert converted(root) == {f"model.layers.{layer}.{name}" for name in MATRICES}
