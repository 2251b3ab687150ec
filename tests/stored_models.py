"""What tests of model files share: a small model whose every tensor differs, comparison bit by bit, changed JSON."""

import json

import torch

from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.weights.lora import adapted
from herd.weights.registry import open_model


def make_model(config, seed=3):
    model = Llama(config)
    init_weights(model, seed)
    with torch.no_grad():
        for index, layer in enumerate(model.model.layers):  # norms that are all ones would hide a swap
            layer.input_layernorm.weight.add_(0.1 * index)
            layer.post_attention_layernorm.weight.add_(0.3)
    return model.eval()


def trained(model):
    """Adapters that say something: B drawn too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, layer in adapted(model):
            layer.lora_B.copy_(torch.randn(layer.lora_B.shape, generator=generator) * 0.1)
    return model


def edit(path, **changes):
    """Other values in a JSON object; `...` takes a key out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def edit_config(folder, **changes):
    edit(folder / "config.json", **changes)


def tensors(path):
    return {name: entry.values().clone() for name, entry in open_model(path).tensors.items()}


def files(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


def same(first, second):
    """Whether two models have the same names, dtypes and bits."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(bits(first[name]), bits(second[name])) for name in first
    )
