"""What tensor ranks gather in a step follows from the graph alone, and is what the docs and the estimate count."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from cases import packed_batches
from processes import run_on
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from train_models import tiny_model

from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.parallel import tokens
from herd.train.parallel.tensor import parallelise_tensors
from herd.train.parallel.tokens import TensorGroup

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def counted(rank: int, layers: int, held: bool) -> Counter[str]:
    """Calls of a step's forward and backward. `held`: whatever was gathered stays alive, as gloo may keep it."""
    calls, alive = Counter[str](), list[Tensor]()
    gathered, scattered = tokens._gathered, tokens._scattered

    def gather(part_BTD: Tensor, group: TensorGroup) -> Tensor:
        calls["gather"] += 1
        alive.append(gathered(part_BTD, group))
        return alive[-1] if held else alive.pop()

    def scatter(whole_BTD: Tensor, group: TensorGroup) -> Tensor:
        calls["scatter"] += 1
        return scattered(whole_BTD, group)

    model = tiny_model(n_layers=layers, n_kv_heads=2)
    parallelise_tensors(model, DeviceMesh("cpu", torch.arange(2), mesh_dim_names=("tp",)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_gathered", gather)
        patch.setattr(tokens, "_scattered", scatter)
        LanguageModelling().terms(model, packed_batches()[0]).total.backward()
    return calls


def counts(rank: int) -> list[Counter[str]]:
    return [counted(rank, layers, held) for layers, held in ((1, False), (2, False), (2, True))]


def test_a_layer_gathers_six_times_and_reduces_four_whoever_holds_on_to_what_was_gathered() -> None:
    for one, two, held in run_on(2, counts):
        assert {name: two[name] - one[name] for name in two} == {"gather": 6, "scatter": 4}
        assert held == two
