"""Small models and data for the tests of the training room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.train.settings import TrainSettings

VOCABULARY = 50

# No deadline: these tests assert no times, and the first example pays for imports.
hypothesis.settings.register_profile("train", deadline=None, max_examples=30)
hypothesis.settings.load_profile("train")


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


def talk(prompt: int, answer: int, seed: int) -> Talk:
    """`prompt` untrained header-ish tokens, `answer` trained content tokens and a trained stop."""
    rng = np.random.default_rng((seed, prompt, answer))
    ids = rng.integers(1, VOCABULARY - 1, prompt + answer).tolist()
    kinds = ["header"] * prompt + ["content"] * answer + ["stop"]
    return Talk([*ids, VOCABULARY - 1], [False] * prompt + [True] * (answer + 1), kinds)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products gain nothing from threads and lose much where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
