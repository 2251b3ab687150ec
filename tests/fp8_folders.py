"""What tests of FP8 folders share: a BF16 folder made FP8 in plain torch, as llm-compressor and AutoFP8 do it."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from herd.weights.fp8 import Fp8Linear
from herd.weights.hf import load_model
from herd.weights.tensors import SINGLE
from stored_models import edit_config

TOKENS = torch.arange(20)[None]
E4M3 = {"num_bits": 8, "type": "float", "symmetric": True}
STATIC = {**E4M3, "strategy": "tensor", "dynamic": False}


def logits_of(folder):
    model = load_model(folder)
    with torch.no_grad():
        return model.logits(model(TOKENS))


def logits_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    with torch.no_grad():
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(TOKENS).logits


def layers_differ(folder, ours, spread=1.0):
    """The FP8 layers of our model that do not compute, on equal inputs, what those of `folder` do in transformers."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors", reason="reading FP8 in transformers needs compressed-tensors")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    layers, generator, found = fp8_layers(ours), torch.Generator().manual_seed(0), []
    assert layers
    with torch.no_grad():
        theirs(TOKENS)  # it unpacks its weights at the first call
        for name, layer in layers.items():
            x = torch.randn(1, 50, layer.in_features, generator=generator) * spread
            if not close(layer(x), theirs.get_submodule(name)(x), 1e-6):
                found.append(name)
    return found


def fp8_layers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, Fp8Linear)}


def close(first, second, most=1e-5):
    return ((first - second).norm() / second.norm()).item() < most


def scheme(strategy="channel", inputs=None, ignore=("lm_head",), **more):
    activations = {**E4M3, "strategy": "token", "dynamic": True} if inputs is None else inputs
    group = {"targets": ["Linear"], "weights": {**E4M3, "strategy": strategy, "dynamic": False}}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": list(ignore),
        "config_groups": {"group_0": group | {"input_activations": activations}},
    } | more


def quantise(folder, stated, *, by_row, scale_dtype=torch.float32, shape=None, also=None):
    """Every linear layer but lm_head in FP8, as llm-compressor and AutoFP8 do it; plain torch."""
    state = {}
    for name, tensor in load_file(folder / SINGLE).items():
        if not name.endswith("proj.weight"):
            state[name] = tensor
            continue
        wide = tensor.float()
        largest = wide.abs().amax(1, keepdim=True) if by_row else wide.abs().amax()
        scale = (largest / 448).to(scale_dtype)
        state[name] = (wide / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
        state[name + "_scale"] = scale if shape is None else scale.reshape(shape)
    save_file(state | (also or {}), folder / SINGLE)
    edit_config(folder, quantization_config=stated)
    return state


def wide(state, name):
    return state[name].float() * state[name + "_scale"].float()
