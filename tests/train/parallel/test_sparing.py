"""What processes keep for their backward, counted in the trainer itself: less by what is made again, same gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import Case, cases
from processes import run_on
from torch import Tensor

from herd.llama.model import Llama
from herd.llama.remade import OBSERVER
from herd.train.parallel.data import local
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.plan import ParallelPlan, parse_plan
from herd.train.parallel.worker import MeshWorker
from herd.train.settings import TrainSettings

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

PLANS = ("dp=2", "tp=2", "cp=2", "pp=2", "dp=2,compile=true")
LENGTH, LAYERS = 24, 4
SETTINGS, CPU = TrainSettings(1, 4 * LENGTH, LENGTH), torch.device("cpu")


def case() -> Case:
    """Two rows of one length, and as many for another data rank."""
    whole = next(case for case in cases() if case.name == "whole rows")
    batch = whole.batches[0]
    twice = [torch.cat([x, x]) for x in (batch.tokens_BT, batch.targets_BT, batch.weights_BT, batch.positions_BT)]
    names = ("tokens_BT", "targets_BT", "weights_BT", "positions_BT")
    return replace(whole, batches=[replace(batch, **dict(zip(names, twice, strict=True)), counted_N=None)])


def step(plan: ParallelPlan) -> tuple[int, dict[str, Tensor]]:
    """Bytes that autograd keeps in a step, parameters among them, and its gradients."""
    one, kept = case(), dict[int, Tensor]()
    worker = MeshWorker.of(one.model(), one.objective, SETTINGS, Mesh.of(plan, CPU))

    def keep(tensor: Tensor) -> Tensor:
        plain = local(tensor)
        kept[plain.untyped_storage().data_ptr()] = plain
        return tensor

    batches = [batch.share(worker.part) for batch in one.batches]
    before = OBSERVER.set(keep)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        worker.forward_backward(batches, one.objective)
    OBSERVER.reset(before)
    gradients = {name: local(p.grad).clone() for name, p in worker.optimiser.masters.items() if p.grad is not None}
    return sum(x.untyped_storage().nbytes() for x in kept.values()), gradients


def both(rank: int) -> dict[str, tuple[int, bool]]:
    """By plan: bytes that are not kept any more, and whether all gradients are the same."""
    found = {}
    for text in PLANS:
        plan = parse_plan(text)
        torch._dynamo.reset()
        (all_of_it, wanted), (less, gradients) = (
            step(replace(plan, recompute=what)) for what in ("nothing", "elementwise")
        )
        alike = torch.equal if not plan.compile else torch.allclose
        same = wanted.keys() == gradients.keys() and all(alike(wanted[n], gradients[n]) for n in wanted)
        found[text] = all_of_it - less, same
    return found


def test_processes_keep_less_by_norms_swiglu_and_gathered_keys() -> None:
    shape = case().model().config
    numbers, keys = 2 * shape.dim + shape.ffn_dim, 2 * shape.kv_dim
    tokens = 4 * LENGTH  # of a layer and step
    wanted = {
        "dp=2": LAYERS * tokens / 2 * numbers,
        "tp=2": LAYERS * tokens / 2 * numbers,
        "cp=2": LAYERS * tokens * (numbers / 2 + keys / 2),  # all keys, or this rank's
        "pp=2": LAYERS / 2 * tokens * numbers,
        "dp=2,compile=true": LAYERS * tokens / 2 * numbers,
    }
    for found in run_on(2, both):
        assert all(same for _, same in found.values()), found
        assert {text: size for text, (size, _) in found.items()} == {text: 4 * n for text, n in wanted.items()}


def layouts_made(rank: int) -> int:
    """Of one micro-batch, by a rank with three stages."""
    one, made = case(), []
    worker = MeshWorker.of(one.model(), one.objective, SETTINGS, Mesh.of(parse_plan("pp=2,virtual=3"), CPU))
    with pytest.MonkeyPatch.context() as patch:
        plain = Llama._layout
        patch.setattr(Llama, "_layout", lambda *given: made.append(0) or plain(*given))
        worker.forward_backward(one.batches, one.objective)
    return len(made)


def test_stages_of_a_rank_share_a_layout_but_for_the_first_of_all_which_may_be_frozen() -> None:
    assert run_on(2, layouts_made) == [2, 1]
