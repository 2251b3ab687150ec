"""A network out of a model on disk, whatever its format.

    model = load_any("original/")                              # fp32 parameters
    model = load_any("Llama-3.1-8B", dtype=torch.bfloat16)     # the file's own: parameters are the mapped file

Where dtype, device and row order are the file's own, nothing is read before it is used, and nothing is copied: an 8B
model opens in seconds and needs no memory of its own besides what the kernel may drop again. FP8 and Q8_0 stay as they
are in the file, so a quantised model needs about half.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from herd.devices import GIB, find_device, free_memory, memory_errors, multiplies_bfloat16
from herd.errors import DeviceError
from herd.llama.model import Llama
from herd.text import Tokenizer
from herd.weights.bf16 import Bf16Linear
from herd.weights.fp8 import Fp8Linear
from herd.weights.q8_0 import Q8Embedding, Q8Linear
from herd.weights.registry import open_model, tokenizer_of
from herd.weights.stored import EMBEDDING, FP8, StoredModel

CPU = torch.device("cpu")
_MATRICES = ("_proj.weight", "lm_head.weight")


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
    return place(stored, device, say), tokenizer


def place(
    stored: StoredModel,
    device: str = "cpu",
    say: Callable[[str], None] | None = None,
    *,
    choose: Callable[[StoredModel, torch.device], torch.dtype] | None = None,
) -> Llama:
    """The network of a stored model on a device by its name; `choose` says in which dtype (`fitting_dtype`)."""
    needs = sum(_kept_bytes(stored, name, own_dtype(stored)) for name in stored.tensors)
    found = find_device(device, needs=needs, say=say)
    with memory_errors("give --device cpu, or quantise the model: herd quantize, herd convert --to gguf"):
        return build_model(stored, dtype=(choose or fitting_dtype)(stored, found), device=found)


def fitting_dtype(stored: StoredModel, device: torch.device = CPU) -> torch.dtype:
    """What a model computes in: bfloat16 of the file on a GPU that multiplies it, fp32, the most exact, where a copy
    takes at most half of the memory that is free; else the file's own dtype."""
    own = own_dtype(stored)
    if own == torch.bfloat16 and multiplies_bfloat16(device):
        return own
    count = sum(entry.count for entry in stored.tensors.values() if entry.dtype != FP8)
    return torch.float32 if 4 * count <= free_memory(device) / 2 else own


def own_dtype(stored: StoredModel) -> torch.dtype:
    """The dtype of most weights that are no FP8; bfloat16 where these are quantised in another way."""
    largest = max((e for e in stored.tensors.values() if e.dtype != FP8), key=lambda entry: entry.n_bytes)
    return torch.bfloat16 if largest.packed else largest.dtype


def build_model(
    stored: StoredModel, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Llama:
    """A `Llama` in eval mode with the tensors of `stored` (checked before): parameters as `dtype`, FP8 as it is.

    Matrices in Q8_0 blocks stay in them, exact, unless fp32 is asked for, which holds their values too. Raises
    DeviceError before anything is read where main memory cannot hold what has to be computed out of the file.
    """
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu:
        _refuse_too_large(stored, dtype)
    blocks = {name for name, entry in stored.tensors.items() if _stays_in_blocks(stored, name, dtype)}
    fp8 = partial(Fp8Linear, bound=stored.activation_bound, static=stored.is_static)
    with torch.device("meta"):
        model = Llama(stored.config)
        for name, entry in stored.tensors.items():
            if entry.dtype == FP8:
                _replace(model, name, fp8)
            elif name == EMBEDDING and name in blocks:
                model.model.embed_tokens = Q8Embedding(*entry.shape, dtype=dtype)  # type: ignore[assignment]
            elif name in blocks:
                _replace(model, name, Q8Linear)
            elif on_cpu and dtype == torch.bfloat16 and name.endswith(_MATRICES):
                _replace(model, name, Bf16Linear)
    for name in model.state_dict():
        entry = stored.tensors[name]
        blocks_of = entry.packed.q8_0 if entry.packed and name in blocks else None
        _assign(model, name, (blocks_of or entry.values)(), dtype, device)
    return model.eval()


def _stays_in_blocks(stored: StoredModel, name: str, dtype: torch.dtype) -> bool:
    packed = stored.tensors[name].packed
    is_output = name == EMBEDDING and stored.config.tie_embeddings  # the network multiplies by it itself
    return packed is not None and packed.q8_0 is not None and dtype != torch.float32 and not is_output


def _kept_bytes(stored: StoredModel, name: str, dtype: torch.dtype) -> int:
    """Bytes of a tensor in a built model."""
    entry = stored.tensors[name]
    if entry.dtype == FP8:
        return entry.n_bytes
    if entry.packed and _stays_in_blocks(stored, name, dtype):
        return entry.packed.n_bytes
    return entry.count * dtype.itemsize


def _refuse_too_large(stored: StoredModel, dtype: torch.dtype) -> None:
    """Mapped tensors need no memory of their own; the system would end a program that computes more than there is."""
    computed = [
        _kept_bytes(stored, name, dtype)
        for name, entry in stored.tensors.items()
        if entry.dtype not in (dtype, FP8) or (entry.packed and not _stays_in_blocks(stored, name, dtype))
    ]
    free = free_memory(CPU)
    if sum(computed) > free:
        raise DeviceError(
            f"the weights take {sum(computed) / GIB:.1f} GiB as {str(dtype).removeprefix('torch.')}, "
            f"and {free / GIB:.1f} GiB of memory are free",
            where=str(stored.path),
            mend="convert it once: herd convert MODEL small.gguf --to gguf --dtype q8_0; such blocks stay in the file",
        )


def _replace(model: Llama, name: str, layer: Callable[[int, int], nn.Module]) -> None:
    """Put another kind of layer where the linear one with the weight `name` stands."""
    parent, _, leaf = name.removesuffix(".weight").rpartition(".")
    linear = model.get_submodule(name.removesuffix(".weight"))
    assert isinstance(linear, nn.Linear)
    setattr(model.get_submodule(parent), leaf, layer(linear.in_features, linear.out_features))


def _assign(model: Llama, name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device | str) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._buffers:  # FP8 weights, their scales and blocks keep their own dtype
        kept = module._buffers[leaf]
        assert kept is not None
        module._buffers[leaf] = tensor.to(device, kept.dtype)
    else:
        module._parameters[leaf] = nn.Parameter(tensor.to(device, dtype))
