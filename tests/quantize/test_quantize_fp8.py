"""FP8: rounding and bounds against the facts' golden rows, layers against an independent product, folders round."""

import json

import numpy as np
import pytest
import torch

from herd.errors import ArtifactError, InputError, NoEffectError, SettingError
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.quantize.fp8 import quantize_model, save_fp8
from herd.quantize.settings import Fp8Policy
from herd.weights.fp8 import Fp8Linear, dequantize, quantize_rows
from herd.weights.hf import load_model, save_model

CONFIG = LlamaConfig(61, 32, 4, 4, 2, 48)
E4M3 = np.array(
    sorted(
        {
            sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))
            for sign in (1, -1)
            for exponent in range(16)
            for mantissa in range(8)
            if (exponent, mantissa) != (15, 7)  # that pattern is NaN
        }
    )
)


def make(config=CONFIG, seed=0):
    model = Llama(config)
    init_weights(model, seed)
    return model.eval()


def draw(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def test_the_table_of_the_test_is_the_format():
    assert E4M3.max() == 448
    assert len(E4M3) == 253  # 256 patterns, two NaN, two zeros


def test_values_are_the_nearest_e4m3_numbers():
    x = draw(20, 64, scale=3.0)
    values, scale = quantize_rows(x)
    exact = (x / scale).double().numpy()
    nearest = E4M3[np.abs(exact[..., None] - E4M3).argmin(-1)]
    found = values.double().numpy()
    np.testing.assert_array_less(np.abs(found - exact), np.abs(nearest - exact) + 1e-9)  # ties may go either way
    assert (np.abs(found).max(1) == 448).all()


def test_golden_rows():
    huge = torch.tensor([[4480.0, 1200.0, -4480.0, 1.0]])
    values, scale = quantize_rows(huge, bound=1200.0)
    assert scale.item() == pytest.approx(2.678571, rel=1e-6)
    assert values.float()[0, :3].tolist() == [448, 448, -448]
    assert dequantize(values, scale)[0, :3].tolist() == pytest.approx([1200, 1200, -1200])
    _, small = quantize_rows(torch.tensor([[2.24, -1.0]]), bound=1200.0)
    assert small.item() == pytest.approx(0.005, rel=1e-6)


def test_the_bound_saves_the_small_values_of_a_row_with_an_outlier():
    row = torch.cat((torch.tensor([30_000.0]), torch.full((63,), 0.05)))[None]
    bounded, unbounded = (dequantize(*quantize_rows(row, bound)) for bound in (1200.0, None))
    assert (unbounded[0, 1:] == 0).all()  # underflow: what the bound is for
    torch.testing.assert_close(bounded[0, 1:], row[0, 1:], rtol=0.07, atol=0)


def test_rows_of_zeros_and_of_tiny_values():
    values, scale = quantize_rows(torch.stack((torch.zeros(8), torch.full((8,), 1e-30), torch.ones(8))))
    assert torch.isfinite(scale).all()
    assert (scale > 0).all()
    assert dequantize(values, scale)[0].tolist() == [0.0] * 8
    assert dequantize(values, scale)[2].tolist() == pytest.approx([1.0] * 8)


def test_nan_is_never_hidden():
    values, _ = quantize_rows(torch.tensor([[1.0, float("nan")], [1.0, 2.0]]), bound=1200.0)
    assert values.float()[0].isnan().any()
    assert not values.float()[1].isnan().any()


def test_a_layer_is_the_product_of_its_fp8_values():
    linear = torch.nn.Linear(64, 24, bias=False)
    with torch.no_grad():
        linear.weight.copy_(draw(24, 64, scale=0.07))
    x = draw(3, 5, 64, scale=4.0)
    x[0, 0, 0] = 5000.0
    layer = Fp8Linear.of(linear, bound=1200.0)
    a, s = quantize_rows(x, 1200.0)
    exact = (a.double() @ layer.weight.double().t()) * s.double() * layer.weight_scale.double().t()
    torch.testing.assert_close(layer(x).double(), exact, rtol=1e-5, atol=2e-4)  # fp32 sums of hundreds
    torch.testing.assert_close(layer(x[1:]), linear(x[1:]), rtol=0.1, atol=0.25)
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_exactly_the_middle_feed_forwards_change():
    model = make()
    report = quantize_model(model)
    changed = [name for name, module in model.named_modules() if isinstance(module, Fp8Linear)]
    leaves = ("gate_proj", "up_proj", "down_proj")
    assert changed == [f"model.layers.{layer}.mlp.{leaf}" for layer in (1, 2) for leaf in leaves]
    assert [tensor.name for tensor in report.tensors] == [f"{name}.weight" for name in changed]


def test_the_report_counts_bytes_and_errors(tmp_path):
    model = make()
    before = save_model(tmp_path / "bf16", model, CONFIG, herd={})
    weight = model.model.layers[1].mlp.gate_proj.weight.detach().clone()
    report = quantize_model(model)
    after = save_fp8(tmp_path / "fp8", model, herd={}, report=report)
    assert (report.bytes_before, report.bytes_after) == (before, after)
    layer = model.model.layers[1].mlp.gate_proj
    error = (dequantize(layer.weight, layer.weight_scale) - weight).norm() / weight.norm()
    assert report.tensors[0].relative_error == pytest.approx(error.item())
    assert 0.01 < report.worst.relative_error < 0.04  # three bits of mantissa: a few per cent
    assert json.loads((tmp_path / "fp8" / "herd.json").read_text())["fp8"]["report"]["saved"] == report.saved


def test_quality_stays():
    model = make()
    tokens = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model.logits(model(tokens))
        quantize_model(model)
        after = model.logits(model(tokens))
    assert not torch.equal(before, after)
    assert ((before - after).norm() / before.norm()).item() < 0.05


def test_the_405b_shape_saves_what_the_release_saved():
    """Facts 1.4: feed-forward of 124 of 126 layers at one byte."""
    names = Fp8Policy().names(126)
    assert len(names) == 124 * 3
    assert names[0].startswith("model.layers.1.")
    assert names[-1].startswith("model.layers.124.")


def test_nothing_to_do_is_said_loudly():
    with pytest.raises(NoEffectError, match="selects no layer of 2"):
        quantize_model(make(LlamaConfig(61, 32, 2, 4, 2, 48)))
    with pytest.raises(NoEffectError, match="no layer of the model is FP8"):
        save_fp8("nowhere", make(), herd={})


def test_quantising_twice_is_refused():
    model = make()
    quantize_model(model)
    with pytest.raises(InputError, match="quantised already"):
        quantize_model(model)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sick_model_is_refused_and_left_as_it_was(bad):
    model = make()
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[3, 4] = bad
    with pytest.raises(InputError, match=r"layers\.2\.mlp\.up_proj"):
        quantize_model(model)
    assert not any(isinstance(module, Fp8Linear) for module in model.modules())


@pytest.mark.parametrize(
    "settings", [{"projections": ("embed_tokens",)}, {"keep_first": -1}, {"activation_bound": 0.0}]
)
def test_impossible_policies(settings):
    with pytest.raises(SettingError):
        Fp8Policy(**settings)


def test_training_through_fp8_is_refused():
    model = make()
    quantize_model(model)
    with pytest.raises(InputError, match="no gradient"):
        model.train()(torch.zeros(1, 3, dtype=torch.int64))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard", [10_000, 2**30])
def test_folders_round_trip(tmp_path, tied, shard):
    model = make(LlamaConfig(61, 32, 4, 4, 2, 48, tie_embeddings=tied))
    quantize_model(model, Fp8Policy(activation_bound=700.0))
    save_fp8(tmp_path / "m", model.bfloat16(), herd={"made_by": "test"}, max_shard_bytes=shard)
    loaded = load_model(tmp_path / "m", dtype=torch.bfloat16)
    state, found = model.state_dict(), loaded.state_dict()
    assert state.keys() == found.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].float(), tensor.float()), name
    assert loaded.model.layers[1].mlp.up_proj.bound == 700.0
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(loaded(tokens), model(tokens))


def test_scales_survive_a_change_of_dtype():
    """model.to(bfloat16) rounds the scales too unless told otherwise; e4m3 values must not be touched at all."""
    model = make()
    quantize_model(model)
    layer = model.model.layers[1].mlp.gate_proj
    before, scale = layer.weight.float(), layer.weight_scale.clone()
    model.bfloat16()
    assert torch.equal(layer.weight.float(), before)
    assert layer.weight.dtype == torch.float8_e4m3fn
    assert torch.equal(layer.weight_scale, scale)
    assert layer.weight_scale.dtype == torch.float32


def test_the_layout_on_disk(tmp_path):
    model = make()
    quantize_model(model)
    save_fp8(tmp_path / "m", model, herd={})
    stated = json.loads((tmp_path / "m" / "config.json").read_text())["quantization_config"]
    assert (stated["quant_method"], stated["format"]) == ("compressed-tensors", "float-quantized")
    group = stated["config_groups"]["group_0"]
    assert group["weights"]["strategy"] == "channel"
    assert (group["input_activations"]["strategy"], group["input_activations"]["dynamic"]) == ("token", True)
    attention = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(4) for p in "qkvo"]
    ends = [f"model.layers.{i}.mlp.{p}_proj" for i in (0, 3) for p in ("gate", "up", "down")]
    assert sorted(stated["ignore"]) == sorted([*attention, *ends, "lm_head"])
    assert json.loads((tmp_path / "m" / "herd.json").read_text())["fp8"]["activation_bound"] == 1200.0


def test_a_config_that_disagrees_with_the_weights(tmp_path):
    model = make()
    save_model(tmp_path / "bf16", model, CONFIG, herd={})
    quantize_model(model)
    save_fp8(tmp_path / "fp8", model, herd={})
    (tmp_path / "bf16" / "config.json").write_text((tmp_path / "fp8" / "config.json").read_text())
    with pytest.raises(ArtifactError, match="does not agree"):
        load_model(tmp_path / "bf16")
    path = tmp_path / "fp8" / "config.json"
    content = json.loads(path.read_text())
    content["quantization_config"]["config_groups"]["group_0"]["weights"]["strategy"] = "block"
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="not read here"):
        load_model(tmp_path / "fp8")


def test_the_folder_of_metas_own_release_is_understood(tmp_path):
    model = make()
    quantize_model(model)
    save_fp8(tmp_path / "m", model, herd={})
    path = tmp_path / "m" / "config.json"
    content = json.loads(path.read_text())
    kept = content["quantization_config"]["ignore"]
    content["quantization_config"] = {
        "quant_method": "fbgemm_fp8",
        "activation_scale_ub": 1200.0,
        "modules_to_not_convert": kept,
    }
    path.write_text(json.dumps(content))
    (tmp_path / "m" / "herd.json").unlink()
    assert load_model(tmp_path / "m").model.layers[1].mlp.up_proj.bound == 1200.0


def test_transformers_loads_the_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors", reason="reading FP8 in transformers needs compressed-tensors")
    model = make()
    quantize_model(model, Fp8Policy(activation_bound=None))
    save_fp8(tmp_path / "m", model, herd={})
    model = load_model(tmp_path / "m")  # what is not FP8 was rounded to BF16
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        found, expected = theirs(tokens).logits, model.logits(model(tokens))
    assert ((found - expected).norm() / expected.norm()).item() < 1e-5  # it runs the same FP8 arithmetic
