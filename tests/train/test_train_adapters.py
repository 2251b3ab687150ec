"""Adapters, frozen bases and recomputation in the one loop: exact gradients, kill and resume, what is kept."""

import copy

import pytest
import safetensors.torch
import torch
from train_models import random_documents, tiny_model, tiny_settings

from herd.errors import SettingError
from herd.llama.remade import OBSERVER
from herd.train.batch import Batch
from herd.train.loop import train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.optimiser import Optimiser
from herd.train.recompute import recompute
from herd.train.sources import Batches, TokenStream
from herd.weights.frozen import FrozenLinear
from herd.weights.lora import adapted, attach, matrices, put
from herd.weights.settings import LoraSettings


class Killed(Exception):
    pass


class KillAt:
    def __init__(self, step):
        self.step = step

    def update(self, done, total, unit, facts=None):
        if done == self.step:
            raise Killed

    def note(self, text):
        pass


def adapter_model(base="plain", dropout=0.3, dtype=torch.float32):
    model = tiny_model(1, n_layers=3).to(dtype)
    if base != "plain":
        for name, layer in matrices(model, LoraSettings().targets):
            put(model, name, FrozenLinear.of(layer, base))
    attach(model, LoraSettings(rank=3, dropout=dropout))
    return model.train()


def batches(settings):
    return Batches(TokenStream(random_documents(60), settings.seq_len, 0), settings)


def learnt(model):
    return {name: param.detach().clone() for name, param in model.named_parameters() if param.requires_grad}


def run(model, folder, settings, progress=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return train(model, LanguageModelling(), batches(settings), settings, folder, progress)


def gradients(model, batch):
    model = copy.deepcopy(model)
    torch.manual_seed(0)
    loss = LanguageModelling().terms(model, batch).total
    loss.backward()
    return [loss, *(param.grad for param in model.parameters() if param.grad is not None)]


@pytest.mark.parametrize("what", ["elementwise", "mlp", "layer"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("kind", ["full", "adapter", "adapter in int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputed_gradients_are_equal_bit_for_bit(what, every, kind, dtype):
    plain = tiny_model(1, n_layers=3).train().to(dtype)
    if kind != "full":
        plain = adapter_model("int8" if "int8" in kind else "plain", dtype=dtype)
    settings = tiny_settings()
    batch: Batch = batches(settings).batch(0)[0]
    saving = copy.deepcopy(plain)
    recompute(saving, what, every)
    assert [name for name, _ in saving.named_parameters()] == [name for name, _ in plain.named_parameters()]
    ours, expected = gradients(saving, batch), gradients(plain, batch)
    assert len(ours) == len(expected) > 10
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def kept_bytes(model):
    """What autograd keeps in a forward beside the parameters, each storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)  # alive, so that no other takes its place
        return tensor

    batch = batches(tiny_settings()).batch(0)[0]
    before = OBSERVER.set(pack)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(batch.tokens_BT, positions_BT=batch.positions_BT, document_ids_BT=batch.document_ids_BT)
    OBSERVER.reset(before)
    del out
    return sum(size for size, _ in found.values())


def test_each_way_of_recomputing_keeps_less_than_the_one_before():
    sizes = []
    for what in ("nothing", "elementwise", "mlp", "layer"):
        model = tiny_model(1, n_layers=3).train()
        recompute(model, what)
        sizes.append(kept_bytes(model))
    assert sizes == sorted(sizes, reverse=True)
    shape, tokens = tiny_model(1).config, tiny_settings().batch_tokens
    assert sizes[0] - sizes[1] == 3 * 4 * tokens * (2 * shape.dim + shape.ffn_dim)  # both norms, and SwiGLU
    assert sizes[3] < sizes[0] / 3


def test_recompute_refuses_what_makes_no_sense():
    with pytest.raises(SettingError, match="every is 0"):
        recompute(tiny_model(), "layer", 0)


@pytest.mark.parametrize("base", ["plain", "fp8", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_killed_adapter_run_ends_in_the_same_bits(tmp_path, base, dtype):
    stored = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    settings = tiny_settings(steps=7, checkpoint_every_steps=2, dtype=dtype, microbatch_tokens=32, anneal_steps=3)
    whole = adapter_model(base, dtype=stored)
    run(whole, tmp_path / "whole", settings)
    with pytest.raises(Killed):
        run(adapter_model(base, dtype=stored), tmp_path / "cut", settings, KillAt(5))
    resumed = adapter_model(base, dtype=stored)
    run(resumed, tmp_path / "cut", settings)
    assert learnt(whole).keys() == learnt(resumed).keys()
    assert all(torch.equal(learnt(whole)[name], param) for name, param in learnt(resumed).items())
    assert any(float(layer.lora_B.detach().abs().max()) > 0 for _, layer in adapted(whole))


def test_the_frozen_base_does_not_move_and_is_not_in_checkpoints(tmp_path):
    model = adapter_model()
    before = {name: param.clone() for name, param in model.named_parameters() if not param.requires_grad}
    run(model, tmp_path, tiny_settings(steps=4, checkpoint_every_steps=2))
    assert all(torch.equal(model.get_parameter(name), tensor) for name, tensor in before.items())
    (file,) = (tmp_path / "checkpoints" / "step-4").glob("model.safetensors")
    assert set(safetensors.torch.load_file(file)) == set(learnt(model))


@pytest.mark.parametrize("base", ["plain", "int8", "fp8"])
def test_a_bfloat16_copy_shares_the_frozen_base(base):
    model = adapter_model(base, dtype=torch.bfloat16)
    copied = Optimiser(model, tiny_settings(dtype="bfloat16")).compute
    own, theirs = dict(model.named_parameters()) | dict(model.named_buffers()), dict(copied.named_parameters())
    theirs |= dict(copied.named_buffers())
    assert own.keys() == theirs.keys()
    for name, tensor in own.items():
        shared = tensor.data_ptr() == theirs[name].data_ptr()
        assert shared == ("lora_" not in name), name
        assert tensor.dtype == (torch.float32 if "lora_" in name or name.endswith("_scale") else tensor.dtype)
        assert theirs[name].dtype == (torch.bfloat16 if "lora_" in name else tensor.dtype)


def test_dropout_makes_a_difference_and_the_seed_decides_it(tmp_path):
    models = [adapter_model(dropout=dropout) for dropout in (0.0, 0.3, 0.3)]
    for number, model in enumerate(models):
        run(model, tmp_path / str(number), tiny_settings(steps=3))
    none, first, second = (learnt(model) for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(none[name], first[name]) for name in first)
