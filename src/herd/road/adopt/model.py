"""The adopted model made ready for training: read, its base frozen in eight bits if asked, adapter, recomputation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from herd.errors import InputError, SettingError
from herd.llama.config import LlamaConfig
from herd.llama.model import Llama
from herd.posttrain.adoption import Adoption
from herd.road.adopt.teach import check_teacher
from herd.text import Tokenizer
from herd.train.precision import compute_dtype
from herd.train.recompute import recompute
from herd.weights.fp8 import Fp8Linear
from herd.weights.frozen import FrozenLinear
from herd.weights.hf import load_model
from herd.weights.lora import attach, matrices, put
from herd.weights.settings import ATTENTION, FEED_FORWARD


def ready(adoption: Adoption, folder: Path, device: torch.device) -> Llama:
    """The model of `folder` on `device`, in training mode; what does not learn is frozen.

    Under an adapter the base stays in the dtype of the computation, mapped from the file where it is stored so and the
    device is the CPU. Without one the weights are float32 masters. Raises SettingError for a model that cannot be
    trained this way.
    """
    narrow = adoption.adapter is not None and compute_dtype(adoption.train, device) == torch.bfloat16
    # What becomes eight bits on the way waits in main memory: the device never holds more than it keeps.
    first = device if adoption.base == "plain" else torch.device("cpu")
    model = load_model(folder, dtype=torch.bfloat16 if narrow else torch.float32, device=first)
    _refuse_full_fp8(adoption, model, folder)
    if adoption.adapter is not None:
        _freeze(model, adoption, device)
        attach(model.to(device), adoption.adapter)
    recompute(model, adoption.recompute, adoption.recompute_every)
    return model.train()


def _freeze(model: Llama, adoption: Adoption, device: torch.device) -> None:
    head = getattr(model, "lm_head", None)
    if isinstance(head, Fp8Linear):
        model.lm_head = FrozenLinear.of(head, "fp8")  # type: ignore[assignment]
    for name, layer in matrices(model, ATTENTION + FEED_FORWARD):
        if isinstance(layer, Fp8Linear):
            put(model, name, FrozenLinear.of(layer, "fp8"))
        elif adoption.base == "fp8" or adoption.base == "int8":
            put(model, name, FrozenLinear.of(layer.to(device), adoption.base))


def least_bytes(adoption: Adoption, config: LlamaConfig) -> int:
    """What a training is sure to take of a device's memory: weights, gradients and moments; activations come on top."""
    learns = 16 + 2 * (adoption.train.dtype != "float32")  # master, gradient, two moments; the copy that computes
    if adoption.adapter is None:
        return config.parameters() * learns
    in_matrices = config.n_layers * (config.layer_parameters() - 2 * config.dim)
    kept = {"plain": 2 if adoption.train.dtype != "float32" else 4, "fp8": 1, "int8": 1}[adoption.base]
    return in_matrices * kept + (config.parameters() - in_matrices) * 2


def check_fit(adoption: Adoption, config: LlamaConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Refuse, before any weight is read, a model that cannot learn this way: its context, ids, chat format, teacher."""
    if not tokenizer.can_chat:
        raise InputError(
            "the model's tokenizer has no chat format: there are no tokens that begin and end a turn",
            where=str(folder),
            mend="adopt a model whose tokenizer has them (the instruct one of the same family)",
        )
    length = adoption.train.seq_len
    if length > config.max_seq_len:
        raise SettingError(
            f"rows of {length} tokens, and the model's context is {config.max_seq_len}",
            where="train.seq_len",
            mend=f"give --set train.seq_len={config.max_seq_len} and a batch_tokens that it divides",
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"the tokenizer knows {tokenizer.vocab_size} ids, the model {config.vocab_size}",
            where=str(folder),
            mend="the two belong to different models; copy the folder again",
        )
    if adoption.teacher and adoption.teacher.folder:
        check_teacher(adoption.teacher, tokenizer, length)


def _refuse_full_fp8(adoption: Adoption, model: Llama, folder: Path) -> None:
    if adoption.adapter is None and any(isinstance(module, Fp8Linear) for module in model.modules()):
        raise SettingError(
            "an FP8 model cannot be trained in full: its matrices pass no gradient",
            where=str(folder),
            mend="adopt the bfloat16 folder, or train an adapter over it",
        )


def counts(model: nn.Module) -> dict[str, int]:
    """Parameters that learn and that do not, and the bytes of the latter."""
    learning = sum(param.numel() for param in model.parameters() if param.requires_grad)
    frozen = [param for param in model.parameters() if not param.requires_grad]
    matrices_8bit = [
        part for module in model.modules() if isinstance(module, FrozenLinear) for part in module.buffers()
    ]
    kept = [*frozen, *matrices_8bit]
    weights = [tensor for tensor in kept if tensor.dtype != torch.float32 or tensor.shape[-1:] != (1,)]
    return {
        "learning": learning,
        "frozen": sum(tensor.numel() for tensor in weights),
        "frozen_bytes": sum(tensor.nbytes for tensor in kept),
    }
