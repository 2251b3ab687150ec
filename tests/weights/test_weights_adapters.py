"""Adapters: the layer's own gradients against autograd, merging, and folders both ways with peft."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from herd.errors import ArtifactError, FormatError, HerdError, InputError, SettingError
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.quantize.fp8 import quantize_model
from herd.weights.frozen import FrozenLinear
from herd.weights.hf import save_model
from herd.weights.lora import LoraLinear, adapted, attach, matrices, merge, put
from herd.weights.peft import load_adapter, save_adapter
from herd.weights.peft_files import CONFIG, TENSORS
from herd.weights.settings import ATTENTION, LoraSettings
from stored_models import edit, trained

SHAPE = LlamaConfig(61, 32, 3, 4, 2, 48, rope_scaling=None)
TOKENS = torch.arange(40).view(2, 20) % 61


def make(config=SHAPE, seed=3):
    model = Llama(config)
    init_weights(model, seed, 0.2)
    return model.eval()


def logits(model, tokens=TOKENS):
    with torch.no_grad():
        return model.logits(model(tokens))


def with_adapter(**changes):
    model = make()
    attach(model, LoraSettings(**{"rank": 4, "alpha": 6.0, **changes}))
    return trained(model)


@given(rows=st.integers(1, 5), rank=st.integers(1, 4), seed=st.integers(0, 99), dropped=st.booleans())
def test_gradients_of_the_layer_are_those_of_autograd(rows, rank, seed, dropped):
    torch.manual_seed(seed)
    base = torch.nn.Linear(6, 5, bias=False).double().requires_grad_(False)
    layer = LoraLinear(base, rank, 0.7, 0.5 if dropped else 0.0).double()
    torch.nn.init.normal_(layer.lora_A)
    torch.nn.init.normal_(layer.lora_B)
    x, upstream = torch.randn(2, rows, 6, dtype=torch.float64), torch.randn(2, rows, 5, dtype=torch.float64)

    def run(forward):
        inputs = [x.clone().requires_grad_(), layer.lora_A, layer.lora_B]
        torch.manual_seed(seed)
        out = forward(inputs[0])
        return [out, *torch.autograd.grad(out, inputs, upstream)]

    def plain(x):
        low = F.dropout(x, 0.5) if dropped else x
        return F.linear(x, base.weight) + 0.7 * F.linear(F.linear(low, layer.lora_A), layer.lora_B)

    for ours, theirs in zip(run(layer), run(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_fresh_adapter_changes_nothing_and_only_it_learns():
    plain, model = make(), make()
    attach(model, LoraSettings(rank=2))
    assert torch.equal(logits(model), logits(plain))
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)
    assert len(learning) == 2 * 7 * SHAPE.n_layers
    with pytest.raises(InputError, match="adapters already"):
        attach(model, LoraSettings())


def test_one_seed_one_start():
    first, second, other = (make() for _ in range(3))
    for model, seed in ((first, 5), (second, 5), (other, 6)):
        attach(model, LoraSettings(rank=2, seed=seed))
    starts = [torch.cat([layer.lora_A.flatten() for _, layer in adapted(m)]) for m in (first, second, other)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_merged_equals_adapted_within_rounding():
    model = with_adapter()
    before, far = logits(model), (logits(model) - logits(make())).abs().max()
    merge(model)
    assert type(model.model.layers[0].self_attn.q_proj) is torch.nn.Linear
    assert set(model.state_dict()) == set(make().state_dict())
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)
    assert far > 0.1


@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_a_base_in_eight_bits_trains_and_merges(kind):
    model = make()
    exact = logits(model)
    for name, layer in matrices(model, LoraSettings().targets):
        put(model, name, FrozenLinear.of(layer, kind))
    error = (logits(model) - exact).norm() / exact.norm()
    assert 0 < error < (0.1 if kind == "fp8" else 0.03)
    attach(model, LoraSettings(rank=4))
    trained(model).train()
    twin = copy.deepcopy(model)
    merge(twin)  # plain matrices of the same values: autograd of torch is the judge
    upstream = torch.randn(*TOKENS.shape, SHAPE.dim, generator=torch.Generator().manual_seed(0))
    model.model.embed_tokens.weight.requires_grad_()
    twin.model.embed_tokens.weight.requires_grad_()
    for each in (model, twin):
        (each(TOKENS) * upstream).sum().backward()
    ours, theirs = model.model.embed_tokens.weight.grad, twin.model.embed_tokens.weight.grad
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    torch.testing.assert_close(logits(twin), logits(model), rtol=1e-4, atol=1e-4)


def test_an_fp8_folder_keeps_its_values_as_a_frozen_base():
    model = make()
    quantize_model(model)
    name = "model.layers.1.mlp.up_proj"
    layer = model.get_submodule(name)
    frozen = FrozenLinear.of(layer, "int8")
    assert frozen.weight.dtype == torch.float8_e4m3fn
    assert torch.equal(frozen.dense(torch.float32), layer.weight.float() * layer.weight_scale)


def test_eight_bits_survive_a_change_of_dtype():
    frozen = FrozenLinear.of(torch.nn.Linear(8, 4, bias=False), "fp8")
    before = frozen.weight, frozen.weight_scale
    moved = frozen.to(torch.bfloat16)
    assert moved.weight.dtype == torch.float8_e4m3fn
    assert moved.weight_scale.dtype == torch.float32
    assert moved.weight.data_ptr() == before[0].data_ptr()


def test_a_sick_weight_is_refused():
    layer = torch.nn.Linear(3, 3, bias=False)
    layer.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        FrozenLinear.of(layer, "int8")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"alpha": 0.0}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"targets": ()}, "no matrix"),
        ({"targets": ("q_prj",)}, "q_prj"),
        ({"targets": ("lm_head",)}, "lm_head"),
    ],
)
def test_impossible_settings_are_refused(changes, word):
    with pytest.raises(SettingError, match=word):
        LoraSettings(**changes)


def test_a_folder_comes_back_bit_for_bit(tmp_path):
    model = with_adapter(dropout=0.1, targets=ATTENTION)
    save_adapter(tmp_path / "a", model, base="m", herd={})
    again = make()
    load_adapter(tmp_path / "a", again)
    assert torch.equal(logits(again), logits(model))
    assert {n: (m.rank, m.scale, m.dropout) for n, m in adapted(again)} == {
        n: (m.rank, m.scale, m.dropout) for n, m in adapted(model)
    }


def both(tmp_path):
    """(peft, a transformers model of our weights)"""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    save_model(tmp_path / "m", make(), SHAPE, dtype=torch.float32, herd={})
    return peft, transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)


@pytest.mark.parametrize("changes", [{}, {"targets": ("q_proj", "down_proj")}, {"rank": 1, "alpha": 0.5}])
def test_peft_reads_our_folder_and_says_the_same(tmp_path, changes):
    peft, theirs = both(tmp_path)
    model = with_adapter(**changes)
    save_adapter(tmp_path / "a", model, base=str(tmp_path / "m"), herd={})
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "a")
    with torch.no_grad():
        found = theirs(TOKENS).logits
    torch.testing.assert_close(found, logits(model), rtol=1e-4, atol=1e-4)
    assert (found - logits(make())).abs().max() > 0.05
    with torch.no_grad():
        torch.testing.assert_close(theirs.merge_and_unload()(TOKENS).logits, logits(model), rtol=1e-4, atol=1e-4)


def test_peft_reads_ranks_that_differ(tmp_path):
    peft, theirs = both(tmp_path)
    model = with_adapter()
    name = "model.layers.2.mlp.up_proj"
    wide = LoraLinear(model.get_submodule(name).base, 7, 0.3)
    torch.nn.init.normal_(wide.lora_A)
    torch.nn.init.normal_(wide.lora_B, std=0.1)
    put(model, name, wide)
    save_adapter(tmp_path / "a", model, base="m", herd={})
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "a")
    with torch.no_grad():
        torch.testing.assert_close(theirs(TOKENS).logits, logits(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q|v)_proj"},
        {"target_modules": ["q_proj", "up_proj"], "use_rslora": True},
        {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"k_proj": 9}},
        {"target_modules": ["o_proj"], "layers_to_transform": [1]},
    ],
)
@pytest.mark.parametrize("safe", [True, False])
def test_we_read_what_peft_wrote(tmp_path, options, safe):
    peft, theirs = both(tmp_path)
    config = peft.LoraConfig(r=4, lora_alpha=6, init_lora_weights=False, task_type="CAUSAL_LM", **options)
    torch.manual_seed(0)
    theirs = peft.get_peft_model(theirs, config)
    theirs.save_pretrained(tmp_path / "a", safe_serialization=safe)
    ours = make()
    load_adapter(tmp_path / "a", ours)
    with torch.no_grad():
        expected = theirs.eval()(TOKENS).logits
    torch.testing.assert_close(logits(ours), expected, rtol=1e-4, atol=1e-4)
    merge(ours)
    torch.testing.assert_close(logits(ours), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda a: (a / CONFIG).unlink(), "no adapter is here"),
        (lambda a: (a / TENSORS).unlink(), "neither"),
        (lambda a: (a / TENSORS).write_bytes((a / TENSORS).read_bytes()[:-9]), "whole file"),
        (lambda a: edit(a / CONFIG, use_dora=True), "use_dora"),
        (lambda a: edit(a / CONFIG, bias="all"), "bias"),
        (lambda a: edit(a / CONFIG, peft_type="IA3"), "IA3"),
        (lambda a: edit(a / CONFIG, r=5), "rank 4"),
        (lambda a: edit(a / CONFIG, lora_alpha="much"), "lora_alpha"),
    ],
)
def test_what_is_not_such_a_folder_is_refused(tmp_path, spoil, word):
    save_adapter(tmp_path / "a", with_adapter(), base="m", herd={})
    spoil(tmp_path / "a")
    with pytest.raises(HerdError, match=word):
        load_adapter(tmp_path / "a", make())


def test_an_adapter_of_another_model_is_refused(tmp_path):
    save_adapter(tmp_path / "a", with_adapter(), base="m", herd={})
    with pytest.raises(ArtifactError, match="this model takes"):
        load_adapter(tmp_path / "a", make(LlamaConfig(61, 16, 3, 4, 2, 48, rope_scaling=None)))
    with pytest.raises(ArtifactError, match=r"no free matrix model\.layers\.2"):
        load_adapter(tmp_path / "a", make(LlamaConfig(61, 32, 2, 4, 2, 48, rope_scaling=None)))


def test_pickles_that_would_run_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    save_adapter(tmp_path / "a", with_adapter(), base="m", herd={})
    (tmp_path / "a" / TENSORS).unlink()
    torch.save({"x": Evil()}, tmp_path / "a" / "adapter_model.bin")
    with pytest.raises(FormatError):
        load_adapter(tmp_path / "a", make())
    assert not (tmp_path / "ran").exists()
