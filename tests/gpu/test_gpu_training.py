"""Training on a CUDA device against the same on the CPU: every objective, adapters, recomputation, checkpoints."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from gpu_models import (
    CPU,
    CUDA,
    LENGTH,
    OBJECTIVES,
    ON_CUDA,
    SHAPE,
    for_objective,
    gradients,
    objective,
    settings,
    tiny,
)

from herd.devices import find_device
from herd.errors import DeviceError
from herd.llama.attention import Layout, attend, document_mask
from herd.llama.model import Llama
from herd.llama.rope import document_starts
from herd.progress import Silent
from herd.train.loop import mean_loss, train
from herd.train.recompute import recompute

pytestmark = ON_CUDA
KINDS = ("full", "plain", "fp8", "int8")


def close(ours, theirs, share):
    """Within `share` of each tensor's own size, as rounding in another order leaves it."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        apart = (ours[name].float() - expected.float()).norm()
        assert apart <= share * expected.float().norm() + 1e-6, f"{name}: {float(apart)}"


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_the_cpus_in_float32(tmp_path, name, kind):
    found = []
    for device in (CPU, CUDA):
        how = settings()
        task, source = objective(name, tmp_path, how)
        found.append(gradients(for_objective(name, tiny(kind)).to(device), task, source.batch(0)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    close(found[1][1], found[0][1], 1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_learns_along_the_curve_of_float32_on_the_cpu(tmp_path, name, kind):
    curves = []
    for device, dtype in ((CPU, "float32"), (CUDA, "bfloat16")):
        how = settings(dtype=dtype, steps=12)
        task, source = objective(name, tmp_path, how)
        model = for_objective(name, tiny(kind)).to(device)
        curves.append(train(model, task, source, how, tmp_path / str(device)).losses)
    assert curves[1] == pytest.approx(curves[0], rel=0.05, abs=0.05)
    assert curves[1][-1] < curves[1][0]


@pytest.mark.parametrize("what", ["layer", "mlp"])
@pytest.mark.parametrize("kind", ["full", "int8"])
def test_recomputed_gradients_are_the_kept_ones_and_take_less_memory(tmp_path, what, kind):
    found, peaks = [], []
    for part in ("nothing", what):
        model = tiny(kind).to(CUDA)
        recompute(model, part)
        task, source = objective("sft", tmp_path, settings())
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found.append(gradients(model, task, source.batch(0)))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    close(found[1][1], found[0][1], 1e-5)
    assert peaks[1] < peaks[0]


def test_a_dropout_run_resumed_on_the_gpu_draws_on_where_it_was(tmp_path):
    how = settings(steps=6, checkpoint_every_steps=3)

    def adapted():
        model = tiny("plain")
        for module in model.modules():
            if hasattr(module, "dropout"):
                module.dropout = 0.2
        return model.to(CUDA)

    task, source = objective("sft", tmp_path, how)
    torch.manual_seed(1)
    whole = train(adapted(), task, source, how, tmp_path / "whole").losses
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-6")
    torch.manual_seed(99)
    assert train(adapted(), task, source, how, tmp_path / "again").losses == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("kind", ["full", "fp8"])
def test_a_run_goes_from_the_cpu_to_the_gpu_and_back(tmp_path, kind):
    how = settings(steps=9, anneal_steps=6, checkpoint_every_steps=3)
    task, source = objective("sft", tmp_path, how)
    whole = tiny(kind)
    train(whole, task, source, how, tmp_path / "whole")

    class Stopped(Exception):
        pass

    class Until(Silent):
        def __init__(self, step):
            self.step, self.notes = step, []

        def update(self, done, total, unit, facts=None):
            if done == self.step + 1:  # after the checkpoint of `step`
                raise Stopped

        def note(self, text):
            self.notes.append(text)

    moved = tiny(kind)
    for device, step in ((CPU, 3), (CUDA, 6), (CPU, 100)):
        said = Until(step)
        moved = copy.deepcopy(tiny(kind)).to(device)
        try:
            train(moved, task, source, how, tmp_path / "moved", said)
        except Stopped:
            assert step < 100
        assert step == 3 or "rest rounds otherwise" in said.notes[0]
    close(dict(moved.named_parameters()), dict(whole.named_parameters()), 1e-3)


def test_documents_on_the_gpu_equal_the_cpus_blocks_and_keep_no_scores():
    q, k, v = (torch.randn(2, 2048, heads, 64, generator=torch.Generator().manual_seed(heads)) for heads in (8, 2, 2))
    ids = (torch.arange(2048) // 300).expand(2, -1)
    spans = Layout(torch.empty(0), torch.empty(0), mask=document_mask(document_starts(ids)))
    expected = attend(q, k, v, spans)
    there = Layout(torch.empty(0), torch.empty(0), mask=document_mask(document_starts(ids.to(CUDA))))
    torch.testing.assert_close(attend(q.to(CUDA), k.to(CUDA), v.to(CUDA), there).cpu(), expected, rtol=1e-4, atol=1e-4)
    halves = [x.to(CUDA, torch.bfloat16).requires_grad_() for x in (q, k, v)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attend(*halves, there).sum().backward()
    scores = 2 * 8 * 2048 * 2048 * 2
    assert torch.cuda.max_memory_allocated() - before < scores


def test_the_validation_loss_is_the_cpus(tmp_path):
    task, source = objective("sft", tmp_path, settings())
    batches = source.batch(0)
    assert mean_loss(tiny().to(CUDA), task, batches) == pytest.approx(mean_loss(tiny(), task, batches), rel=1e-5)


def test_out_of_memory_names_the_settings_and_the_run_before_is_whole(tmp_path):
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(max(0, free - 2**30), dtype=torch.uint8, device=CUDA)
    rows = max(64, 2**36 // (LENGTH * SHAPE.ffn_dim * SHAPE.n_layers * 64))
    how = settings(batch_tokens=rows * LENGTH, microbatch_tokens=0)
    task, source = objective("sft", tmp_path, how)
    try:
        with pytest.raises(DeviceError, match="out of memory") as caught:
            train(tiny().to(CUDA), task, source, how, tmp_path / "run")
    finally:
        del hog
        torch.cuda.empty_cache()
    assert caught.value.where == "cuda:0"
    assert "microbatch_tokens" in caught.value.mend


def test_a_full_device_is_told_and_passed_over():
    free, _ = torch.cuda.mem_get_info()
    with pytest.raises(DeviceError, match="GiB are needed"):
        find_device("cuda:0", needs=2 * free + 2**40)
    assert find_device("auto", needs=2**50).type == "cpu"
    assert find_device("auto", needs=1).type == "cuda"


def test_a_step_stops_the_host_only_at_its_end(tmp_path):
    """Between the first operation and the last one torch sees no synchronisation at all."""
    model: Llama = tiny("plain").to(CUDA)
    task, source = objective("sft", tmp_path, settings())
    batches = [batch.to(CUDA) for batch in source.batch(0)]
    task.terms(model, batches[0]).total.backward()  # tables and kernels that the first step makes
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            task.terms(model, batch).total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
