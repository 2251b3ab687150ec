"""What tests of FP8 folders share: a BF16 folder made FP8 in plain torch, as llm-compressor and AutoFP8 do it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from herd.weights.hf import load_model
from herd.weights.tensors import SINGLE

TOKENS = torch.arange(20)[None]
E4M3 = {"num_bits": 8, "type": "float", "symmetric": True}
STATIC = {**E4M3, "strategy": "tensor", "dynamic": False}


def edit(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def logits_of(folder):
    model = load_model(folder)
    with torch.no_grad():
        return model.logits(model(TOKENS))


def logits_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    with torch.no_grad():
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(TOKENS).logits


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
    edit(folder, quantization_config=stated)
    return state


def wide(state, name):
    return state[name].float() * state[name + "_scale"].float()
