"""A step on another device, without having one: on torch's "meta" device operations know shapes and no values.

Whatever was forgotten on the CPU meets a tensor of another device there and raises; so does every read of a value,
which on a GPU would make the host wait.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from test_train_loop import Notes
from test_train_objectives import objectives, pairs_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from train_models import as_before_manifests, tiny_model, tiny_settings

from herd.errors import DeviceError
from herd.llama.rope import rotation
from herd.train import loop, rng
from herd.train.batch import Batch
from herd.train.checkpoints import Checkpoints
from herd.train.loop import train
from herd.train.objectives.dpo import reference_logprobs
from herd.train.objectives.reward import RewardModel
from herd.train.optimiser import Optimiser
from herd.train.pairs import pair_batch
from herd.train.precision import compute_dtype
from herd.train.recompute import recompute
from herd.train.run import Run
from herd.train.worker import Worker
from herd.weights.frozen import FrozenLinear
from herd.weights.lora import attach, matrices, put
from herd.weights.settings import LoraSettings
from herd.weights.shard_files import ShardFiles
from herd.weights.sharded import read_manifest

NAMES = ("language_modelling", "sft", "distillation", "dpo", "reward")


class OneDevice(TorchDispatchMode):
    """Fails at an operation on tensors of two devices; a scalar of the CPU may stand beside any."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        found = {tensor.device.type for tensor in tensors if tensor.dim()}
        assert len(found) < 2, f"{function} mixes {sorted(found)}"
        return out


def made(tmp_path, name, kind="full", what="nothing"):
    """(model, objective, source) of an objective, the model adapted as `kind` says."""
    model, objective, seq_len, source = objectives(tmp_path)[name]
    llama = model.llama if isinstance(model, RewardModel) else model
    if kind != "full":
        for place, layer in matrices(llama, LoraSettings().targets) if kind in ("fp8", "int8") else ():
            put(llama, place, FrozenLinear.of(layer, kind))
        attach(llama, LoraSettings(rank=2, dropout=0.1))
    recompute(llama, what)
    settings = tiny_settings(steps=2, seq_len=seq_len, batch_tokens=8 * seq_len, microbatch_tokens=4 * seq_len)
    return model.train(), objective, source(settings), settings


def far(model):
    """The model on the meta device, with the tables of its rotation there already."""
    llama = model.llama if isinstance(model, RewardModel) else model
    rotation(llama.config, torch.zeros(1, 1, device="meta"))
    return model.to("meta")


CASES = {
    "full": ("full", "float32", "nothing"),
    "full, layers recomputed": ("full", "bfloat16", "layer"),
    "adapter": ("plain", "bfloat16", "mlp"),
    "adapter over fp8": ("fp8", "bfloat16", "nothing"),
    "adapter over int8, recomputed": ("int8", "float32", "layer"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_a_step_stays_on_its_device_and_reads_nothing(tmp_path, name, case):
    kind, dtype, what = CASES[case]
    model, objective, source, settings = made(tmp_path, name, kind, what)
    batches = [batch.to("meta") for batch in source.batch(0)]
    optimiser = Optimiser(far(model), replace(settings, dtype=dtype))
    with OneDevice():
        for batch in batches:
            terms = objective.terms(optimiser.compute, batch)
            terms.total.backward()
            optimiser.collect()
    assert {each.device.type for each in (terms.total, terms.count, *terms.metrics.values())} == {"meta"}
    learning = [param for param in optimiser.masters.values() if param.grad is not None]
    assert len(learning) > 5
    assert {param.grad.device.type for param in learning} == {"meta"}
    optimiser.step(1e-3)
    assert {value.device.type for key, value in optimiser.moments() if not key.startswith("step.")} == {"meta"}


def test_the_check_itself_finds_what_was_forgotten():
    near, distant = torch.ones(2, 2), torch.ones(2, 2, device="meta")
    with OneDevice(), pytest.raises(AssertionError, match="mixes"):
        distant[torch.tensor([0])]
    with pytest.raises(RuntimeError, match="meta"):
        near + distant
    for read in (lambda: distant.sum().item(), lambda: distant.nonzero(), lambda: bool(distant.any())):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            read()


class Watched:
    """An objective that writes down when it was asked."""

    def __init__(self, inner, events):
        self.inner, self.events, self.name, self.unit = inner, events, inner.name, inner.unit

    def terms(self, model, batch):
        assert {tensor.device.type for name, tensor in batch.tensors().items() if "_host" not in name} == {"meta"}
        self.events.append("microbatch")
        return self.inner.terms(model, batch)


@pytest.mark.parametrize("name", NAMES)
def test_the_loop_reads_a_step_once_all_of_it_is_under_way(tmp_path, name, monkeypatch):
    model, objective, source, settings = made(tmp_path, name)
    events = []

    plain = torch.Tensor.__float__

    def known(tensor):
        if tensor.device.type == "cpu":  # a distillation's temperature, which never left
            return plain(tensor)
        events.append("read")
        return 1.0

    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: [[known(tensor) for _ in range(tensor.shape[1])]])
    monkeypatch.setattr(torch.Tensor, "__float__", known)
    settings = replace(settings, anneal_steps=2)
    result = train(far(model), Watched(objective, events), source, settings, tmp_path / "run")
    assert {param.device.type for param in model.parameters()} == {"meta"}
    parts = len(source.batch(0))
    assert events[:parts] == ["microbatch"] * parts
    turns = [event for event, before in zip(events, [None, *events], strict=False) if event != before]
    assert turns == ["microbatch", "read"] * settings.steps
    assert result.losses == [1.0, 1.0]


def test_what_is_computed_before_training_comes_back_to_main_memory(monkeypatch):
    model, pairs = far(tiny_model()), pairs_of(4)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: torch.zeros(tensor.shape))
    assert reference_logprobs(model, pairs, 64).device.type == "cpu"


def test_places_are_counted_before_the_move():
    batch: Batch = pair_batch(pairs_of(3))
    moved = batch.to("meta")
    assert moved.places().shape == batch.weights_BT.flatten().nonzero().squeeze(-1).shape
    assert moved.to("meta") is moved
    assert {tensor.device.type for tensor in moved.tensors().values()} == {"meta"}


@pytest.mark.parametrize("kind", ["full", "int8"])
def test_a_checkpoint_is_taken_up_on_another_device(tmp_path, kind, monkeypatch):
    """Every tensor that the CPU kept arrives where the model is now, AdamW's own counters too, and it is said."""
    model, objective, source, settings = made(tmp_path, "sft", kind)
    settings = replace(settings, steps=3, anneal_steps=3, checkpoint_every_steps=2)
    train(model, objective, source, settings, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-3")
    there, said = far(made(tmp_path, "sft", kind)[0]), Notes()
    run = Run(there, Worker(there, settings), objective, source, settings, tmp_path / "run", said, None)
    run.history.close()
    assert run.step == 2
    moments = dict(run.optimiser.moments())
    assert len(moments) == 3 * len(run.optimiser.masters)
    assert {value.device.type for value in (*moments.values(), *run.average.mean.values())} == {"meta"}
    assert "written on cpu: on meta the rest rounds otherwise" in said.notes[0]


def test_a_checkpoint_of_a_gpu_goes_on_here_in_the_same_numbers(tmp_path):
    """All but the state of the GPU's own generator, which nothing here could use."""
    model, objective, source, settings = made(tmp_path, "sft", "plain")
    settings = replace(settings, steps=3, checkpoint_every_steps=2)
    train(model, objective, source, settings, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-3")
    kept = Checkpoints(tmp_path / "run" / "checkpoints", 2)
    found = kept.newest(Notes())
    files = ShardFiles(found.path, read_manifest(found.path))
    tensors = {name: files.read(name).clone() for name in found.shapes}
    tensors[f"rng.0.{rng.CUDA}"] = torch.zeros(16, dtype=torch.uint8)
    kept.save(found.step, tensors, {**found.state, "device": "cuda"})
    kept.wait()
    again, said = made(tmp_path, "sft", "plain")[0], Notes()
    train(again, objective, source, settings, tmp_path / "run", said)
    assert "written on cuda: on cpu the rest rounds otherwise" in said.notes[0]
    for ours, whole in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, whole)


def test_a_checkpoint_from_before_there_were_devices_is_the_cpus(tmp_path):
    model, objective, source, settings = made(tmp_path, "sft")
    settings = replace(settings, steps=2, checkpoint_every_steps=1)
    train(model, objective, source, settings, tmp_path / "run")
    as_before_manifests(tmp_path / "run" / "checkpoints" / "step-2")
    said = Notes()
    train(made(tmp_path, "sft")[0], objective, source, settings, tmp_path / "run", said)
    assert said.notes == ["going on from checkpoint step-2"]


def test_out_of_memory_in_a_step_names_the_settings_that_need_less(tmp_path):
    model, objective, source, settings = made(tmp_path, "sft")

    class Full(type(objective)):
        def terms(self, model, batch):
            torch.empty(2**50, dtype=torch.uint8)

    with pytest.raises(DeviceError, match="out of memory when") as caught:
        train(model, Full(), source, settings, tmp_path / "run")
    for word in ("microbatch_tokens (now 96)", "recompute=layer", "fp8 or int8"):
        assert word in caught.value.mend
    least = replace(settings, microbatch_tokens=settings.seq_len)
    assert loop.less_memory(least).startswith("lower seq_len")


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_auto_computes_in_what_a_gpu_multiplies(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert compute_dtype(tiny_settings(dtype="auto"), torch.device("cuda:0")) == expected
    assert compute_dtype(tiny_settings(dtype="float32"), torch.device("cuda:0")) == torch.float32
