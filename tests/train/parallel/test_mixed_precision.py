"""bfloat16 computation on many processes against one process in bfloat16: by layout, with sums in float32, adapters."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from cases import Case, packed_batches
from layouts import Trajectory, find, trained
from processes import run_on
from train_models import tiny_model

from herd.llama.model import Llama
from herd.train.batch import Part
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.plan import parse_plan
from herd.weights.lora import attach
from herd.weights.settings import LoraSettings

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

EPSILON = 2**-8  # what a bfloat16 may be off by, relative
CASES = {
    "packed": ("dp=2", "tp=2", "cp=2"),
    "dpo": ("tp=2",),
    "two rows": ("dp=2", "dp=2,shard=none", "dp=2,shard=reshard", "pp=2"),
    "adapters": ("dp=2", "pp=2"),
}


def case(name: str, dp: int = 1) -> Case:
    """A step; of "two rows" and "adapters" of two micro-batches of one row, of which two data ranks have one each."""
    if name in ("packed", "dpo"):
        return find(name)
    both = packed_batches()[0]
    batches = [both] if dp == 2 else [both.share(Part(n, 2)) for n in range(2)]
    return replace(find("packed"), batches=batches, **({"model": adapted} if name == "adapters" else {}))


def adapted() -> Llama:
    """Adapters over a frozen base in bfloat16."""
    model = tiny_model(vocab_size=51, n_layers=4, n_heads=4, n_kv_heads=2, dim=32).to(torch.bfloat16)
    attach(model, LoraSettings(rank=4))
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(7))
    return model


def learnt(name: str, plan: str = "", dtype: str = "bfloat16") -> Trajectory:
    """The case on this process, or on all of them; gradients of two rows are not clipped, for norms round."""
    mesh = Mesh.of(parse_plan(plan), torch.device("cpu")) if plan else None
    clip = {} if name in ("packed", "dpo") else {"grad_clip": 0}
    return trained(case(name, mesh.plan.dp if mesh else 1), mesh, dtype=dtype, **clip)


def on_all(rank: int) -> dict[tuple[str, str], Trajectory]:
    """Work for `run_on`."""
    found = {(name, plan): learnt(name, plan) for name, plans in CASES.items() for plan in plans}
    return found if rank == 0 else {}


@cache
def on_two() -> dict[tuple[str, str], Trajectory]:
    return run_on(2, on_all)[0]


alone = cache(learnt)


@pytest.mark.parametrize(("name", "plan"), [(name, plan) for name in ("packed", "dpo") for plan in CASES[name]])
def test_bfloat16_on_a_layout_is_as_near_as_bfloat16_is(name: str, plan: str) -> None:
    """Losses within half of a bfloat16's step, norms within four: what the format itself does to one process."""
    found, wanted = on_two()[name, plan], alone(name)
    assert wanted.losses != alone(name, dtype="float32").losses
    assert found.losses == pytest.approx(wanted.losses, rel=EPSILON / 2)
    assert found.norms == pytest.approx(wanted.norms, rel=4 * EPSILON)


@pytest.mark.parametrize(("name", "plan"), [(name, plan) for name in ("two rows", "adapters") for plan in CASES[name]])
def test_gradients_in_bfloat16_are_summed_in_float32(name: str, plan: str) -> None:
    """Bit for bit as one process that adds two micro-batches up in float32, over ten steps: a sum in bfloat16, wherever
    between the ranks, would round."""
    found, wanted = on_two()[name, plan], alone(name)
    assert found.losses == wanted.losses
    assert found.norms == pytest.approx(wanted.norms, rel=1e-6)
    before = dict(case(name).model().named_parameters())
    for key, weight in wanted.weights.items():
        assert torch.equal(found.weights[key], weight), key
        assert torch.equal(weight, before[key]) != (name == "two rows" or "lora_" in key), key
