"""Model repositories for the tests: a real model folder as the bytes of its files."""

from __future__ import annotations

from pathlib import Path

from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.text import Tokenizer
from herd.weights.hf import save_model

CARD = b"---\nlicense: llama3.1\nlanguage:\n- en\n---\n# A model\n"


def tiny(folder: Path, max_shard_bytes: int = 2**30, herd: dict | None = None, dim: int = 16) -> Path:
    """A Llama of some ten thousand parameters, as every herd model is written."""
    tokenizer = Tokenizer.train([])
    config = LlamaConfig(tokenizer.vocab_size, dim=dim, n_layers=3, n_heads=2, n_kv_heads=1, ffn_dim=32)
    model = Llama(config)
    init_weights(model, 0)
    save_model(folder, model, config, tokenizer=tokenizer, herd=herd or {}, max_shard_bytes=max_shard_bytes)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
