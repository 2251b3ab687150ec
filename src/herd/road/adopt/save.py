"""What a fine-tuning leaves: the adapter in peft's layout, the whole model, and how much of it rounding left over.

A model is written in the dtype of the folder it came from. Where that is bfloat16 a small update vanishes: numbers of
0.02 are 0.0001 apart, and a weight that moved by less than half of that is what it was. `kept` measures it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from herd.llama.model import Llama
from herd.posttrain.adoption import Adoption
from herd.progress import Progress
from herd.road.adopt.graph import Training
from herd.road.adopt.model import ready
from herd.text import Tokenizer
from herd.train.objectives.reward import RewardModel
from herd.train.reward_files import write_reward
from herd.weights.hf import save_model, write_model
from herd.weights.lora import adapted, merge
from herd.weights.peft import save_adapter
from herd.weights.registry import open_model
from herd.weights.stored import FP8, in_order
from herd.weights.tensors import Entry

_LITTLE = 0.5  # kept: below this more of the update is lost than is there


def save(
    out: Path,
    settings: Training,
    model: nn.Module,
    tokenizer: Tokenizer,
    report: Mapping[str, Any],
    progress: Progress,
    learnt: Mapping[str, Entry] | None = None,
) -> dict[str, Any]:
    """Write `adapter/`, and `model/` where it is asked for or is all there is; returns {"kept": ...} of the latter.

    `learnt` are the tensors of a model that was trained in full where no process has it whole: `model` says its shape.
    """
    adoption = settings.adoption
    herd = {"adopted_from": settings.model, "data": settings.data, "adoption": adoption.name, **report}
    if adoption.teacher:
        herd["teacher"] = adoption.teacher.folder or adoption.teacher.endpoint.model
    if adoption.adapter is not None:
        save_adapter(out / "adapter", model, base=settings.model, tokenizer=tokenizer, herd=herd)
        if not adoption.merge:
            return {}
    dtype = stored_dtype(Path(settings.model))
    if adoption.adapter is None:
        learnt = {name: replace(entry, dtype=dtype) for name, entry in (learnt or _entries(model)).items()}
        share = kept(_changes(learnt, Path(settings.model)), dtype)
    else:
        model = _with_values(model, adoption, Path(settings.model))
        share = kept(((layer.dense(torch.float32), layer.merged(torch.float32)) for _, layer in adapted(model)), dtype)
        # What was eight bits grows here: main memory has room for it where the device that trained may not.
        merge(model.to("cpu"), dtype)
    if share < _LITTLE:
        progress.note(_warning(adoption, share, dtype))
    _write(out / "model", model, learnt, tokenizer, dtype, herd | {"kept": share})
    return {"kept": share}


def _write(
    folder: Path,
    model: nn.Module,
    learnt: Mapping[str, Entry] | None,
    tokenizer: Tokenizer,
    dtype: torch.dtype,
    herd: Mapping[str, Any],
) -> None:
    """The model out of its own tensors, or of those that are `learnt`."""
    if isinstance(model, RewardModel):
        config, pad = model.llama.config, tokenizer.pad
        entries = _entries(model) if learnt is None else learnt
        write_reward(folder, config, list(entries.values()), pad=pad, tokenizer=tokenizer, dtype=dtype, herd=herd)
        return
    assert isinstance(model, Llama)
    if learnt is None:
        save_model(folder, model, model.config, tokenizer=tokenizer, dtype=dtype, herd=herd, instruct=True)
        return
    entries = in_order(model.config, learnt)
    write_model(
        folder, list(entries.values()), model.config, tokenizer=tokenizer, dtype=dtype, herd=herd, instruct=True
    )


def _entries(model: nn.Module) -> dict[str, Entry]:
    """The parameters of a model by the names of a folder."""
    named = {name.removeprefix("llama."): param for name, param in model.named_parameters()}
    return {name: Entry(name, tuple(p.shape), p.dtype, p.detach) for name, p in named.items()}


def _with_values(model: nn.Module, adoption: Adoption, folder: Path) -> nn.Module:
    """A model whose base has no values here (on many processes) over its base again, with what its adapters learnt."""
    own = {name: param for name, param in model.named_parameters() if not param.is_meta}
    if len(own) == len(list(model.parameters())):
        return model
    whole: nn.Module = ready(adoption, folder, torch.device("cpu"))
    if isinstance(model, RewardModel):
        whole = RewardModel(cast(Llama, whole))
    with torch.no_grad():
        for name, param in own.items():
            whole.get_parameter(name).copy_(param)
    return whole


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


def _changes(learnt: Mapping[str, Entry], folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Matrices before and after, float32."""
    before = open_model(folder).tensors
    for name, entry in learnt.items():
        if name in before and len(entry.shape) == 2:
            yield before[name].values().float(), entry.values().float().cpu()


def _warning(adoption: Adoption, share: float, dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    instead = "load adapter/ beside its base instead of model/" if adoption.adapter else "train an adapter instead"
    return (
        f"{share:.0%} of what was learnt is left in model/: the changes are smaller than {name} resolves; raise "
        f"train.peak_lr (now {adoption.train.peak_lr:g}) or max_epochs, or {instead}"
    )
