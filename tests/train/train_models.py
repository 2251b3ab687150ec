"""Small models and data for the tests of the training room."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from herd.files import read_json, sha256_of, write_json
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.train.settings import TrainSettings
from herd.weights.shard_files import ShardFiles
from herd.weights.sharded import read_manifest

VOCABULARY = 50


@dataclass
class Documents:
    """A TokenStore out of a list."""

    documents: list[np.ndarray]

    @property
    def offsets(self) -> np.ndarray:
        return np.cumsum([0, *(len(d) for d in self.documents)])

    def document(self, index: int) -> np.ndarray:
        return self.documents[index]


@dataclass
class Talk:
    """What the packing and the pairs need of a dialogue."""

    ids: list[int]
    trained: list[bool]
    kinds: list[str]


def tiny_model(seed: int = 0, **changes: object) -> Llama:
    shape = {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "ffn_dim": 32}
    model = Llama(LlamaConfig(**{**shape, **changes}))
    init_weights(model, seed)
    with torch.no_grad():  # far from the tiny start, so that gradients are not all alike
        for param in model.parameters():
            if param.ndim >= 2:
                param.mul_(8)
    return model


def tiny_settings(**changes: object) -> TrainSettings:
    values = {"steps": 8, "batch_tokens": 64, "seq_len": 16, "peak_lr": 1e-2, "warmup_steps": 2}
    return TrainSettings(**{**values, "checkpoint_every_seconds": 0, **changes})


def random_documents(count: int, seed: int = 0, longest: int = 40) -> Documents:
    rng = np.random.default_rng(seed)
    return Documents([rng.integers(1, VOCABULARY, rng.integers(1, longest)).astype(np.uint16) for _ in range(count)])


def as_before_manifests(checkpoint: Path) -> None:
    """Make of a checkpoint one as herd 0.1 wrote it: hashes in state.json, short names, no device, no config."""
    files = ShardFiles(checkpoint, read_manifest(checkpoint))
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name in files.manifest.tensors:
        group, _, key = name.partition(".")
        group, key = ("optimiser", key.removeprefix("0.")) if group == "rng" else (group, key)
        groups.setdefault(group, {})[key] = files.read(name).clone()
    state = {key: value for key, value in read_json(checkpoint / "state.json").items() if key != "device"}
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    for group, tensors in groups.items():
        save_file(tensors, checkpoint / f"{group}.safetensors")
    hashes = {group: sha256_of(checkpoint / f"{group}.safetensors") for group in groups}
    write_json(checkpoint / "state.json", {**state, "sha256": hashes})


def talk(prompt: int, answer: int, seed: int) -> Talk:
    """`prompt` untrained header-ish tokens, `answer` trained content tokens and a trained stop."""
    rng = np.random.default_rng((seed, prompt, answer))
    ids = rng.integers(1, VOCABULARY - 1, prompt + answer).tolist()
    kinds = ["header"] * prompt + ["content"] * answer + ["stop"]
    return Talk([*ids, VOCABULARY - 1], [False] * prompt + [True] * (answer + 1), kinds)
