"""FP8 folders of llm-compressor, AutoFP8 and Meta's own on the Hub: read alike, or refused by name with a way out."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from fp8_folders import (
    E4M3,
    STATIC,
    close,
    fp8_layers,
    layers_differ,
    logits_of,
    logits_of_transformers,
    quantise,
    scheme,
    wide,
)
from herd.errors import ArtifactError, FormatError, HerdError
from herd.llama.config import LlamaConfig
from herd.weights.convert import convert
from herd.weights.formats import WriteOptions
from herd.weights.fp8 import Fp8Linear
from herd.weights.hf import load_model, save_model
from herd.weights.registry import open_model
from herd.weights.tensors import SINGLE
from herd.weights.widen import fp8_names
from stored_models import edit_config, make_model, tensors

CONFIG = LlamaConfig(64, 32, 3, 4, 2, 48, max_seq_len=512)


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "m", make_model(CONFIG), CONFIG, herd={})
    return tmp_path / "m"


CASES = {
    "llm-compressor FP8-dynamic": (scheme(), {"by_row": True, "scale_dtype": torch.bfloat16}),
    "by matrix": (scheme("tensor"), {"by_row": False, "shape": (1,)}),
    "naive": (scheme("tensor", format="naive-quantized"), {"by_row": False, "shape": ()}),
    "AutoFP8 dynamic": (
        {"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["re:.*lm_head"]},
        {"by_row": False, "shape": ()},
    ),
    "fbgemm": (
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": []},
        {"by_row": True},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fp8_of_others_is_read(folder, tmp_path, case):
    stated, how = CASES[case]
    state = quantise(folder, stated, **how)
    model = load_model(folder)
    layer = model.model.layers[0].self_attn.k_proj
    assert isinstance(layer, Fp8Linear)
    assert layer.bound == stated.get("activation_scale_ub")
    name = "model.layers.0.self_attn.k_proj.weight"
    assert torch.equal(layer.weight.float() * layer.weight_scale, wide(state, name))
    convert(folder, tmp_path / "again", to="hf")  # one spelling from here on
    assert torch.equal(logits_of(tmp_path / "again"), logits_of(folder))


@pytest.mark.parametrize("case", ["llm-compressor FP8-dynamic", "by matrix"])
def test_transformers_reads_them_alike(folder, tmp_path, case):
    pytest.importorskip("compressed_tensors", reason="reading FP8 in transformers needs compressed-tensors")
    stated, how = CASES[case]
    quantise(folder, stated, **how)
    convert(folder, tmp_path / "again", to="hf")
    assert close(logits_of(folder), logits_of_transformers(folder), 1e-4)
    assert close(logits_of(tmp_path / "again"), logits_of_transformers(tmp_path / "again"), 1e-4)


def test_every_layer_computes_what_transformers_computes(folder):
    """On equal inputs. Over a whole model a rounding of the inputs in fp32 moves some activations to the next e4m3."""
    quantise(folder, scheme(), by_row=True)
    ours = load_model(folder)
    assert len(fp8_layers(ours)) == 7 * CONFIG.n_layers
    assert layers_differ(folder, ours) == []


def test_scales_of_a_cache_are_passed_over_and_said(folder):
    cache = {f"model.layers.{i}.self_attn.{c}_scale": torch.ones(1) for i in range(3) for c in "kv"}
    quantise(folder, scheme(kv_cache_scheme={**E4M3, "strategy": "tensor"}), by_row=True, also=cache)
    assert "key/value cache" in open_model(folder).notes[0]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_fp8_everywhere_goes_to_meta_where_metas_code_reads_it(folder, tmp_path, ranks):
    state = quantise(folder, scheme(), by_row=True)
    convert(folder, tmp_path / "meta", to="meta", options=WriteOptions(model_parallel=ranks))
    back = open_model(tmp_path / "meta")
    middle = [f"model.layers.1.mlp.{leaf}_proj.weight" for leaf in ("gate", "up", "down")]
    assert fp8_names(back) == middle
    for name, tensor in tensors(tmp_path / "meta").items():
        if name in state and state[name].dtype == torch.float8_e4m3fn and name not in middle:
            assert torch.equal(tensor, wide(state, name).bfloat16()), name
        elif not name.endswith("_scale"):
            assert torch.equal(tensor.view(torch.uint8), state[name].view(torch.uint8)), name


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, "'gptq'"),
        ({"quant_method": "awq", "bits": 4}, "'awq'"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "'bitsandbytes'"),
        ({"quant_method": "torchao"}, "'torchao'"),
        ({"quant_method": ["a"]}, "is not read here"),
        ({"quant_method": "fp8", "activation_scheme": "often"}, "by the scheme 'often'"),
        ({"quant_method": "fp8", "activation_scheme": ["static"]}, "by the scheme"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}, "by block"),
        (scheme("tensor", STATIC | {"strategy": "channel"}), "static scales of activations by 'channel'"),
        (scheme("block"), "not FP8 by row or by matrix"),
        (scheme(inputs={**E4M3, "strategy": "tensor", "dynamic": True}), "dynamic scales of activations by 'tensor'"),
        (scheme(inputs={"num_bits": 8, "type": "int"}), "activations that are not FP8"),
        (scheme(format="pack-quantized"), "pack-quantized"),
        (scheme(config_groups={"a": {}, "b": {}}), "several schemes"),
        (scheme(config_groups={"a": 1}), "all linear ones"),
        (scheme(config_groups={"a": {"targets": ["Linear"], "weights": 3}}), "by row or by matrix"),
    ],
)
def test_other_quantisations_are_refused_by_name_with_a_way_out(folder, stated, words):
    edit_config(folder, quantization_config=stated)
    with pytest.raises(ArtifactError, match=words) as caught:
        open_model(folder)
    assert "BF16 folder" in caught.value.mend


@pytest.mark.parametrize(
    "stated",
    [
        "x",
        scheme(ignore=["re:((("]),
        scheme() | {"ignore": 7},
        scheme() | {"ignore": [7]},
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": "x"},
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": -1.0},
    ],
)
def test_malformed_schemes(folder, stated):
    edit_config(folder, quantization_config=stated)
    with pytest.raises(FormatError) as caught:
        open_model(folder)
    assert "config.json" in caught.value.where


def test_scales_that_do_not_fit(folder):
    quantise(folder, scheme(), by_row=True)
    state = load_file(folder / SINGLE)
    name = "model.layers.0.mlp.up_proj.weight_scale"
    for wrong in ({name: torch.ones(5, 1)}, {}):
        save_file({k: v for k, v in state.items() if k != name} | wrong, folder / SINGLE)
        with pytest.raises(HerdError, match=r"up_proj\.weight_scale"):
            open_model(folder)
