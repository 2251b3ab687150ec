"""Turn a model's matrices into FP8, and write the result for other programs.

    report = quantize_model(model)                       # in place; the model is for inference from here on
    save_fp8(folder, model, tokenizer=tokenizer, herd={...})

No calibration: activations get their scales as they come. Needs the memory of one weight besides the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from herd.errors import InputError, NoEffectError
from herd.llama.attention import Linear
from herd.llama.model import Llama
from herd.progress import Progress, Silent
from herd.quantize.report import Fp8Report, TensorReport
from herd.quantize.settings import HEAD, Fp8Policy
from herd.weights.fp8 import Fp8Linear, dequantize
from herd.weights.hf import SavesFiles, save_model
from herd.weights.hf_fp8 import kept_wide
from herd.weights.quantization import HERD_KEY, described, quantization_config

_BF16 = 2  # bytes


@torch.no_grad()
def quantize_model(model: Llama, policy: Fp8Policy | None = None, *, progress: Progress | None = None) -> Fp8Report:
    """Replace the policy's layers by `Fp8Linear`, in place, and say what it saved and cost.

    Where the head becomes FP8 a tied model is tied no longer: its embedding stays, and `model.config` says so.

    Raises NoEffectError when the policy selects nothing, InputError when the model is FP8 already or a weight is not
    finite; the model is then as it was.
    """
    policy, progress = policy or Fp8Policy(), progress or Silent()
    if any(isinstance(module, Fp8Linear) for module in model.modules()):
        raise InputError("the model is quantised already", where="quantize", mend="start from the bf16 model")
    names = policy.selected(model.config, "quantize")
    bytes_before = sum(parameter.numel() for parameter in model.parameters()) * _BF16
    made, reports = {}, []
    for done, name in enumerate(names, 1):
        linear = _linear(model, name)
        made[name] = _quantize(name, linear, policy.activation_bound)
        reports.append(_report(name, linear.weight, made[name], is_new=name == HEAD and model.config.tie_embeddings))
        progress.update(done, len(names), "matrices", {"error": reports[-1].relative_error})
    for name, layer in made.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
    model.config = policy.shape_of(model.config)
    model.eval()
    return Fp8Report.of(policy.name, reports, bytes_before)


def _linear(model: Llama, name: str) -> nn.Linear:
    """The layer of that name; of a tied model's head one that shares the embedding's matrix."""
    if name == HEAD and model.config.tie_embeddings:
        with torch.device("meta"):
            head = Linear(model.config.dim, model.config.vocab_size)
        head.weight = model.model.embed_tokens.weight
        return head
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


def _quantize(name: str, linear: nn.Linear, bound: float | None) -> Fp8Linear:
    try:
        return Fp8Linear.of(linear, bound=bound)
    except InputError as error:
        raise InputError(error.message, where=f"{name}.weight", mend=error.mend) from error


def _report(name: str, weight: Tensor, layer: Fp8Linear, *, is_new: bool) -> TensorReport:
    wide = weight.to(torch.float32)
    error = (wide - dequantize(layer.weight, layer.weight_scale)).norm() / wide.norm().clamp_min(1e-30)
    after = layer.weight.numel() + layer.weight_scale.numel() * layer.weight_scale.itemsize
    return TensorReport(f"{name}.weight", 0 if is_new else weight.numel() * _BF16, after, float(error))


def save_fp8(
    folder: str | Path,
    model: Llama,
    *,
    tokenizer: SavesFiles | None = None,
    herd: Mapping[str, Any],
    report: Fp8Report | None = None,
    instruct: bool = False,
    max_shard_bytes: int = 5 * 2**30,
) -> int:
    """Write a quantised model in the compressed-tensors layout (what vLLM and transformers read); returns bytes.

    That schema cannot say the bound on activations: other programs will run without it. It stands in herd.json under
    "fp8", from where `load_model` takes it.
    """
    layers = {f"{name}.weight": layer for name, layer in model.named_modules() if isinstance(layer, Fp8Linear)}
    if not layers:
        raise NoEffectError("no layer of the model is FP8", where=str(folder), mend="call quantize_model first")
    first = next(iter(layers.values()))
    static = first.input_scale is not None
    fp8 = described(first.bound, static=static)
    if report is not None:
        fp8["report"] = report.as_json()
    return save_model(
        folder,
        model,
        model.config,
        tokenizer=tokenizer,
        herd={**herd, HERD_KEY: fp8},
        instruct=instruct,
        max_shard_bytes=max_shard_bytes,
        quantization_config=quantization_config(kept_wide(model.config, layers), static=static),
    )
