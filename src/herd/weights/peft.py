"""Adapter folders in the layout of the peft library: `adapter_config.json` and `adapter_model.safetensors`.

    save_adapter(folder, model, base="runs/nano/flagship", tokenizer=tokenizer, herd={...})
    load_adapter(folder, model)          # attaches it to a built Llama; merge(model) folds it in

What is read and what is refused stands in `peft_files.py`; an adapter folder as a model in `format_peft.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from herd.errors import ArtifactError
from herd.files import atomic_file, atomic_folder, write_json
from herd.weights.lora import LoraLinear, adapted, put
from herd.weights.peft_files import CONFIG, OTHER_MODEL, PREFIX, SCORE, TENSORS, Update, read_adapter
from herd.weights.stored import SavesFiles


def save_adapter(
    folder: Path,
    model: nn.Module,
    *,
    base: str,
    tokenizer: SavesFiles | None = None,
    herd: Mapping[str, Any],
) -> int:
    """Write the adapters of `model` (a Llama, or a reward model with its score); returns the bytes of the tensors.

    `base` is the folder or hub name of the model that the adapter belongs to. The folder appears whole or not at all.
    """
    layers = {name.removeprefix("llama."): layer for name, layer in adapted(model)}
    if not layers:
        raise ArtifactError("the model has no adapter to save", where=str(folder), mend="attach one first")
    tensors = {}
    for name, layer in layers.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_A.detach().float().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_B.detach().float().contiguous()
    score = dict(model.named_parameters()).get(SCORE)
    if score is not None:
        tensors[PREFIX + SCORE] = score.detach().float().contiguous()
    with atomic_folder(Path(folder)) as aside:
        with atomic_file(aside / TENSORS) as handle:
            handle.write(safetensors.torch.save(tensors, {"format": "pt"}))
        write_json(aside / CONFIG, _config(layers, base, score is not None))
        if tokenizer is not None:
            tokenizer.save(aside)
        write_json(aside / "herd.json", dict(herd))
    return sum(tensor.nbytes for tensor in tensors.values())


def _config(layers: Mapping[str, LoraLinear], base: str, reward: bool) -> dict[str, Any]:
    """adapter_config.json: the commonest rank and alpha, and patterns for the layers that have others."""
    forms = {name: (layer.rank, layer.scale * layer.rank) for name, layer in layers.items()}
    common = max(sorted(set(forms.values())), key=list(forms.values()).count)
    others = {name: form for name, form in forms.items() if form != common}
    first = next(iter(layers.values()))
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if reward else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": common[0],
        "lora_alpha": common[1],
        "lora_dropout": first.dropout,
        "target_modules": _targets(layers),
        "rank_pattern": {name: rank for name, (rank, _) in others.items()},
        "alpha_pattern": {name: alpha for name, (_, alpha) in others.items()},
        "modules_to_save": ["score"] if reward else None,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _targets(layers: Mapping[str, LoraLinear]) -> list[str]:
    """Leaf names where every layer has the same ones, whole names otherwise."""
    leaves = sorted({name.rpartition(".")[2] for name in layers})
    numbers = {name.split(".")[2] for name in layers}
    return leaves if len(layers) == len(leaves) * len(numbers) else sorted(layers)


def load_adapter(folder: Path, model: nn.Module) -> None:
    """Attach the adapter in `folder` to a `Llama` (or a reward model), in place, with the base frozen.

    Raises what `read_adapter` raises, and ArtifactError for an adapter of another model.
    """
    stored = read_adapter(folder)
    root = "llama." if hasattr(model, "llama") else ""
    parts = dict(model.named_modules())
    model.requires_grad_(False)
    layers = {}
    for name, update in stored.updates.items():
        base = parts.get(root + name)
        if not isinstance(base, nn.Module) or isinstance(base, LoraLinear):
            raise ArtifactError(f"the model has no free matrix {name}", where=str(folder), mend=OTHER_MODEL)
        layers[root + name] = _layer(name, base, update, stored.dropout, folder)
    _load_score(model, stored.score, folder)
    for name, layer in layers.items():
        put(model, name, layer.train(model.training))


def _layer(name: str, base: nn.Module, update: Update, dropout: float, folder: Path) -> LoraLinear:
    layer = LoraLinear(base, update.rank, update.scale, dropout)
    if update.a.shape != layer.lora_A.shape or update.b.shape != layer.lora_B.shape:
        raise ArtifactError(
            f"{name}: A is {list(update.a.shape)} and B {list(update.b.shape)}, this model takes "
            f"{list(layer.lora_A.shape)} and {list(layer.lora_B.shape)}",
            where=str(folder),
            mend=OTHER_MODEL,
        )
    with torch.no_grad():
        layer.lora_A.copy_(update.a)
        layer.lora_B.copy_(update.b)
    return layer


def _load_score(model: nn.Module, score: Tensor | None, folder: Path) -> None:
    own = dict(model.named_parameters()).get(SCORE)
    if (score is None) != (own is None) or (score is not None and own is not None and score.shape != own.shape):
        raise ArtifactError(
            "an adapter of a reward model belongs to a reward model, and that of a language model to one",
            where=str(folder),
            mend="look at task_type in adapter_config.json",
        )
    if score is not None and own is not None:
        with torch.no_grad():
            own.copy_(score)
