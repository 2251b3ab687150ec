"""A network out of a model on disk, whatever its format.

    model = load_any("original/")                              # fp32 parameters
    model = load_any("Llama-3.1-8B", dtype=torch.bfloat16)     # the file's own: parameters are the mapped file

Where dtype, device and row order are the file's own, nothing is read before it is used, and nothing is copied: an 8B
model opens in seconds and needs no memory of its own besides what the kernel may drop again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from herd.devices import find_device, free_memory, memory_errors, multiplies_bfloat16
from herd.llama.model import Llama
from herd.text import Tokenizer
from herd.weights.fp8 import Fp8Linear
from herd.weights.registry import open_model, tokenizer_of
from herd.weights.stored import FP8, StoredModel

CPU = torch.device("cpu")


def load_any(path: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Llama:
    """The model at `path` in any format of the registry, ready for inference; see `build_model`."""
    return build_model(open_model(Path(path)), dtype=dtype, device=device)


def open_for_use(
    path: str | Path, device: str = "cpu", say: Callable[[str], None] | None = None
) -> tuple[Llama, Tokenizer]:
    """A model in any format and its tokenizer, on a device by its name, in the dtype that suits it (`fitting_dtype`).

    `say` is told which device it is. Raises DeviceError where that is absent or the weights do not fit.
    """
    stored = open_model(Path(path))
    tokenizer = tokenizer_of(stored)
    found = find_device(device, needs=sum(entry.n_bytes for entry in stored.tensors.values()), say=say)
    with memory_errors("give --device cpu, or quantise the model: herd quantize, herd convert --to gguf"):
        return build_model(stored, dtype=fitting_dtype(stored, found), device=found), tokenizer


def fitting_dtype(stored: StoredModel, device: torch.device = CPU) -> torch.dtype:
    """What a model computes in: bfloat16 of the file on a GPU that multiplies it, fp32, the most exact, where a copy
    takes at most half of the memory that is free; else the file's own dtype."""
    wide = [entry for entry in stored.tensors.values() if entry.dtype != FP8]
    own = max(wide, key=lambda entry: entry.n_bytes).dtype
    if own == torch.bfloat16 and multiplies_bfloat16(device):
        return own
    count = sum(entry.n_bytes // entry.dtype.itemsize for entry in wide)
    return torch.float32 if 4 * count <= free_memory(device) / 2 else own


def build_model(
    stored: StoredModel, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Llama:
    """A `Llama` in eval mode with the tensors of `stored` (checked before): parameters as `dtype`, FP8 as it is."""
    with torch.device("meta"):
        model = Llama(stored.config)
        for name, entry in stored.tensors.items():
            if entry.dtype == FP8:
                _make_fp8(model, name.removesuffix(".weight"), stored.activation_bound)
    for name in model.state_dict():
        _assign(model, name, stored.tensors[name].values(), dtype, device)
    return model.eval()


def _make_fp8(model: Llama, name: str, bound: float | None) -> None:
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    parent, _, leaf = name.rpartition(".")
    layer = Fp8Linear(linear.in_features, linear.out_features, bound=bound)
    setattr(model.get_submodule(parent), leaf, layer)


def _assign(model: Llama, name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device | str) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._buffers:  # FP8 weights and their scales keep their own dtype
        kept = module._buffers[leaf]
        assert kept is not None
        module._buffers[leaf] = tensor.to(device, kept.dtype)
    else:
        module._parameters[leaf] = nn.Parameter(tensor.to(device, dtype))
