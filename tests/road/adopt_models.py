"""What tests of fine-tuning share: a tokenizer of a few words, and a model folder that can be adopted."""

from __future__ import annotations

from pathlib import Path

from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.text import Tokenizer
from herd.weights.hf import save_model

TOKENIZER = Tokenizer.train(["after before letter "] * 20, 560)


def shape(dim: int) -> LlamaConfig:
    return LlamaConfig(TOKENIZER.vocab_size, dim, 3, 4, 2, 2 * dim, max_seq_len=256, rope_scaling=None)


def save_drawn(folder: Path, config: LlamaConfig, seed: int = 1, std: float = 0.1) -> None:
    """A folder with random weights and the tokenizer."""
    model = Llama(config)
    init_weights(model, seed, std)
    save_model(folder, model, config, tokenizer=TOKENIZER, herd={})
