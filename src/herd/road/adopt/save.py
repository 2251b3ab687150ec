"""What a fine-tuning leaves: the adapter in peft's layout, the whole model, and how much of it rounding left over.

A model is written in the dtype of the folder it came from. Where that is bfloat16 a small update vanishes: numbers of
0.02 are 0.0001 apart, and a weight that moved by less than half of that is what it was. `kept` measures it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from herd.llama.model import Llama
from herd.posttrain.adoption import Adoption
from herd.progress import Progress
from herd.road.adopt.graph import Training
from herd.text import Tokenizer
from herd.train.objectives.reward import RewardModel
from herd.train.reward_files import save_reward
from herd.weights.hf import save_model
from herd.weights.lora import adapted, merge
from herd.weights.peft import save_adapter
from herd.weights.registry import open_model
from herd.weights.stored import FP8

_LITTLE = 0.5  # kept: below this more of the update is lost than is there


def save(
    out: Path,
    settings: Training,
    model: nn.Module,
    tokenizer: Tokenizer,
    report: Mapping[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Write `adapter/`, and `model/` where it is asked for or is all there is; returns {"kept": ...} of the latter."""
    adoption = settings.adoption
    herd = {"adopted_from": settings.model, "data": settings.data, "adoption": adoption.name, **report}
    if adoption.teacher:
        herd["teacher"] = adoption.teacher.folder or adoption.teacher.endpoint.model
    if adoption.adapter is not None:
        save_adapter(out / "adapter", model, base=settings.model, tokenizer=tokenizer, herd=herd)
        if not adoption.merge:
            return {}
    dtype = stored_dtype(Path(settings.model))
    share = kept(_changes(adoption, model, Path(settings.model)), dtype)
    if share < _LITTLE:
        progress.note(_warning(adoption, share, dtype))
    # What was eight bits grows here: main memory has room for it where the device that trained may not.
    merge(model.to("cpu"), dtype if adoption.adapter is not None else None)
    if isinstance(model, RewardModel):
        save_reward(out / "model", model, pad=tokenizer.pad, tokenizer=tokenizer, dtype=dtype, herd=herd)
    else:
        assert isinstance(model, Llama)
        save_model(
            out / "model",
            model,
            model.config,
            tokenizer=tokenizer,
            dtype=dtype,
            herd=herd | {"kept": share},
            instruct=True,
        )
    return {"kept": share}


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype of most of a folder's weights, FP8 matrices and their scales aside."""
    entries = [entry for entry in open_model(folder).tensors.values() if entry.dtype != FP8]
    return max((e for e in entries if not e.name.endswith("_scale")), key=lambda entry: entry.n_bytes).dtype


def kept(changes: Iterator[tuple[Tensor, Tensor]], dtype: torch.dtype) -> float:
    """Of (before, after), both float32: the share of after - before that is there when `after` is stored as `dtype`.

    The regression of what is stored on what was learnt: 1 where all is there (rounding errs to both sides alike), 0
    where every weight rounds back to what it was. 1 when nothing was learnt.
    """
    there = learnt = 0.0
    for before, after in changes:
        change = after - before
        learnt += float(change.double().square().sum())
        there += float((change.double() * (after.to(dtype).float() - before)).sum())
    return there / learnt if learnt else 1.0


@torch.no_grad()
def _changes(adoption: Adoption, model: nn.Module, folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    if adoption.adapter is not None:
        for _, layer in adapted(model):
            yield layer.dense(torch.float32), layer.merged(torch.float32)
        return
    tensors = open_model(folder).tensors
    for name, param in model.named_parameters():
        entry = tensors.get(name.removeprefix("llama."))
        if entry is not None and param.ndim == 2:
            yield entry.values().float(), param.detach().float().cpu()


def _warning(adoption: Adoption, share: float, dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    instead = "load adapter/ beside its base instead of model/" if adoption.adapter else "train an adapter instead"
    return (
        f"{share:.0%} of what was learnt is left in model/: the changes are smaller than {name} resolves; raise "
        f"train.peak_lr (now {adoption.train.peak_lr:g}) or max_epochs, or {instead}"
    )
