"""Pipelines against one process: losses, metrics, gradients, of all objectives; what is held and what is refused."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import Case, cases, numbers, one_process, packed_batches
from processes import run_on
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from train_models import tiny_model

from herd.errors import InputError, SettingError
from herd.train.batch import Batch
from herd.train.parallel.context import ContextGroup, parallelise_context
from herd.train.parallel.pipeline import Pipeline
from herd.train.parallel.rows import OneShare, share_context
from herd.train.parallel.schedule import balanced
from herd.train.parallel.stage import LlamaStage, cut, network, stages_of, tied_name
from herd.train.recompute import recompute


@pytest.mark.parametrize("reward", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_the_parts_of_all_ranks_are_the_model_under_its_own_names(reward: bool, tied: bool) -> None:
    case = cases(tie_embeddings=tied)[4 if reward else 0]
    model = case.model()
    whole, found = dict(model.named_parameters()), list[str]()
    for rank in range(3):
        part = cut(model, (0, 1, 1, 1, 1, 0), rank, 3)
        own = dict(part.named_parameters())
        assert all(param is whole[name] for name, param in own.items())
        assert {id(p) for stage in stages_of(part) for p in stage.parameters()} == {id(p) for p in own.values()}
        found += own
    twice = {"model.embed_tokens.weight"} if tied and not reward else set()
    assert sorted(found) == sorted([*whole, *twice])


def test_a_part_may_be_cut_on_the_meta_device_and_filled_later() -> None:
    with torch.device("meta"):
        model = tiny_model(n_layers=5)
    part = cut(model, balanced(5, 2), 1, 2).to_empty(device="cpu")
    [stage] = stages_of(part)
    assert {p.device.type for p in stage.parameters()} == {"cpu"}
    assert {name.split(".")[2] for name in dict(stage.named_parameters()) if "layers" in name} == {"3", "4"}


def test_wrong_cuts_and_caches_are_refused() -> None:
    for layers, pp in (((2, 3), 2), ((1, 1, 2), 2)):
        with pytest.raises(SettingError, match="share a model of 4"):
            cut(tiny_model(n_layers=4), layers, 0, pp)
    [stage] = stages_of(cut(tiny_model(), (2,), 0, 1))
    with pytest.raises(InputError, match="cache"):
        stage(packed_batches()[0].tokens_BT, cache=object())


def test_layers_of_other_stages_are_skipped_by_recomputation_and_cannot_be_called() -> None:
    part = cut(tiny_model(n_layers=4), (2, 2), 1, 2)
    recompute(network(stages_of(part)[0]), "layer", every=2)
    kinds = [type(layer).__name__ for layer in network(stages_of(part)[0]).model.layers]
    assert kinds == ["Elsewhere", "Elsewhere", "RecomputedBlock", "Block"]
    with pytest.raises(AssertionError, match="another stage"):
        network(part).model.layers[0](torch.zeros(1))


LAYOUTS = {
    "pp2": (2, 1, {}),
    "pp4": (4, 1, {"n_layers": 5}),
    "interleaved pp2": (2, 3, {"tie_embeddings": True}),
    "interleaved pp4": (4, 2, {"n_layers": 7}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.distributed
@pytest.mark.slow
def test_a_pipeline_learns_what_one_process_learns(layout: str) -> None:
    pp, virtual, changes = LAYOUTS[layout]
    run_on(pp, compare_with_one_process, pp, virtual, changes)


def compare_with_one_process(rank: int, pp: int, virtual: int, changes: dict[str, Any]) -> None:
    for case in cases(**changes):
        part = part_of(case, rank, pp, virtual)
        for consecutive in (0, 5) if virtual > 1 else (0,):
            part.zero_grad()
            pipeline = Pipeline(part, dist.group.WORLD, consecutive)
            same_step(pipeline, case, one_process(case))
    computes_again(cases(**changes)[2], rank, pp, virtual)
    frees_what_it_sent(cases(**changes)[0], rank, pp, virtual)
    goes_on_where_the_first_stage_is_frozen(cases(**changes)[3], rank, pp, virtual)


def part_of(case: Case, rank: int, pp: int, virtual: int) -> nn.Module:
    model = case.model()
    return cut(model, balanced(network(model).config.n_layers, pp, virtual), rank, pp)


def same_step(pipeline: Pipeline, case: Case, wanted: Any) -> None:
    """Terms and gradients of a step are one process's, bit for bit, but for a tied embedding's, summed in two parts."""
    sums = wanted.numbers if pipeline.rank == pipeline.size - 1 else zeros(wanted.numbers)
    for found, looked in zip(sums, pipeline.evaluate(case.batches, case.objective), strict=True):
        assert numbers(looked) == pytest.approx(found, rel=1e-5)  # attention without gradients is another kernel
    assert [numbers(terms) for terms in pipeline.run(case.batches, case.objective)] == sums
    parameters = dict(pipeline.part.named_parameters())
    pipeline.sum_tied(parameters)
    for name, param in parameters.items():
        if name not in wanted.gradients:
            assert param.grad is None
        elif name == tied_name(pipeline.part):
            torch.testing.assert_close(param.grad, wanted.gradients[name])
        else:
            assert torch.equal(param.grad, wanted.gradients[name]), name


def zeros(terms: list[dict[str, float]]) -> list[dict[str, float]]:
    return [dict.fromkeys(one, 0.0) for one in terms]


def computes_again(case: Case, rank: int, pp: int, virtual: int) -> None:
    """Recomputed layers of several micro-batches in flight."""
    part = part_of(case, rank, pp, virtual)
    for stage in stages_of(part):
        recompute(network(stage), "layer")
    same_step(Pipeline(part, dist.group.WORLD), case, one_process(case))


def frees_what_it_sent(case: Case, rank: int, pp: int, virtual: int) -> None:
    """Of a stage's outputs the memory is free once they have left, which takes two actions at most."""
    part, made = part_of(case, rank, pp, virtual), list[weakref.ref[Any]]()
    for stage in stages_of(part):
        if not network(stage).last:
            stage.register_forward_hook(lambda _, given, hidden: made.append(weakref.ref(hidden.untyped_storage())))

    def before(stage: nn.Module, last: bool) -> None:
        assert sum(ref() is not None for ref in made) <= 2

    Pipeline(part, dist.group.WORLD, before_backward=before).run(case.batches, case.objective)
    assert len(made) == len(case.batches) * sum(not network(stage).last for stage in stages_of(part))
    assert all(ref() is None for ref in made)


def goes_on_where_the_first_stage_is_frozen(case: Case, rank: int, pp: int, virtual: int) -> None:
    def freeze(model: nn.Module) -> nn.Module:
        for name, param in model.named_parameters():
            param.requires_grad_("embed" not in name and ".0." not in name and ".1." not in name)
        return model

    frozen = replace(case, model=lambda: freeze(case.model()))
    part = part_of(frozen, rank, pp, virtual)
    pipeline = Pipeline(part, dist.group.WORLD)
    terms = pipeline.run(frozen.batches, frozen.objective)
    pipeline.sum_tied(dict(part.named_parameters()))
    gradients = {name: param.grad for name, param in part.named_parameters() if param.grad is not None}
    close_to_one_process(frozen, terms, gradients)
    assert gradients.keys() <= {name for name, param in part.named_parameters() if param.requires_grad}


@pytest.mark.distributed
@pytest.mark.slow
def test_a_pipeline_beside_another_axis_learns_what_one_process_learns() -> None:
    run_on(4, beside_context_and_data)


def beside_context_and_data(rank: int) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
    for number, case in enumerate(cases()):
        beside_context(case, mesh["outer"], mesh["inner"])
        beside_sharded_data(case, mesh["inner"], mesh["outer"], virtual=1 + number % 2)


def beside_context(case: Case, pp: Any, cp: Any) -> None:
    context = ContextGroup(cp.get_group(), multiple=3)
    part = part_of(case, pp.get_local_rank(), 2, 1)
    for stage in stages_of(part):
        parallelise_context(network(stage), context, whole_rows=case.counts_pairs)
    objective = OneShare(case.objective, 2) if case.counts_pairs else case.objective
    width = context.share_of if case.counts_pairs else int
    own = case.batches if case.counts_pairs else [share_context(batch, context.index, 2, 3) for batch in case.batches]
    terms = Pipeline(part, pp.get_group(), width=width).run(own, objective)
    gradients = {name: param.grad for name, param in part.named_parameters() if param.grad is not None}
    for gradient in gradients.values():
        dist.all_reduce(gradient, group=cp.get_group())
    close_to_one_process(case, terms, gradients)


def beside_sharded_data(case: Case, pp: Any, dp: Any, virtual: int) -> None:
    """FSDP2 around blocks and stages; gradients are reduced at a stage's last backward only."""
    case = replace(case, batches=(case.batches * 2)[:6])
    part = part_of(case, pp.get_local_rank(), 2, virtual)
    for stage in stages_of(part):
        llama = network(stage)
        assert isinstance(llama, LlamaStage)
        for layer in llama.layers_here:
            fully_shard(llama.model.layers[layer], mesh=dp, reshard_after_forward=bool(virtual == 1))
        fully_shard(stage, mesh=dp, reshard_after_forward=False)
        for module in stage.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)

    def before(stage: nn.Module, last: bool) -> None:
        assert isinstance(stage, FSDPModule)
        stage.set_is_last_backward(last)
        stage.set_requires_gradient_sync(last)
        stage.set_reshard_after_backward(last)

    own: list[Batch] = case.batches[3 * dp.get_local_rank() :][:3]
    pipeline = Pipeline(part, pp.get_group(), before_backward=before)
    terms = pipeline.run(own, case.objective)
    gradients = {n: p.grad.full_tensor() for n, p in part.named_parameters() if p.grad is not None}
    close_to_one_process(case, terms, gradients)


def close_to_one_process(case: Case, terms: list[Any], gradients: dict[str, Tensor]) -> None:
    wanted = one_process(case)
    summed = torch.tensor([list(numbers(one).values()) for one in terms], dtype=torch.float64).sum(0)
    dist.all_reduce(summed)
    sums = [sum(column) for column in zip(*(one.values() for one in wanted.numbers), strict=True)]
    torch.testing.assert_close(summed.tolist(), sums, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted.gradients[name], rtol=2e-5, atol=2e-5)
