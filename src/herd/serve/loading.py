"""A model folder made ready to be served by the embedded engine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from herd import __version__
from herd.devices import GIB, device_of, free_memory
from herd.errors import SettingError
from herd.generate.embed import mean_hidden
from herd.generate.engine import Engine
from herd.generate.settings import SchedulerSettings
from herd.kernels import status
from herd.llama.model import Llama
from herd.serve.backend import Served
from herd.serve.engine_backend import Embed, Loaded
from herd.serve.settings import ServeSettings
from herd.weights.build import open_for_use

_SHARE = 0.5  # of the memory that is free once the weights are there: for the cache, where nobody says how much
_MOST_TOKENS = 2**20  # and never more positions than this
_LEAST_TOKENS = 256


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and what it may take. Of `cache_tokens` and `cache_gib` one is given, or none."""

    path: Path
    device: str = "auto"
    cache_tokens: int = 0
    cache_gib: float = 0.0

    def __post_init__(self) -> None:
        if self.cache_tokens < 0 or self.cache_gib < 0:
            raise SettingError("the size of the cache is negative", where="cache", mend="give a positive one")
        if self.cache_tokens and self.cache_gib:
            raise SettingError(
                "the size of the cache is given twice", where="cache", mend="give tokens or GB, not both"
            )


def load(chosen: ModelSettings, settings: ServeSettings) -> Loaded:
    """Open the model and make its engine. Raises HerdError for what cannot be opened or does not fit."""
    remarks: list[str] = []
    model, tokenizer = open_for_use(chosen.path, chosen.device, remarks.append)
    tokens = _cache_tokens(model, chosen)
    engine = Engine(
        model,
        cache_tokens=tokens,
        tokenizer=tokenizer,
        scheduling=SchedulerSettings(
            settings.max_running,
            token_budget=settings.max_running + 512,
            max_waiting=settings.max_running + settings.max_queue,
        ),
    )
    config = model.config
    room = min(config.max_seq_len, engine.continuous.scheduler.pool.count * engine.continuous.scheduler.pool.size)
    remarks += [status(), _memory(model, engine)]
    served = Served(
        tokenizer=tokenizer,
        context=config.max_seq_len,
        room=room,
        vocab_size=config.vocab_size,
        fingerprint=_fingerprint(model, tokenizer.fingerprint),
        created=int(time.time()),
        remarks=tuple(remarks),
    )
    return Loaded(engine, served, _embedder(model))


def _cache_tokens(model: Llama, chosen: ModelSettings) -> int:
    if chosen.cache_tokens:
        return chosen.cache_tokens
    each = _bytes_per_token(model)
    if chosen.cache_gib:
        return max(_LEAST_TOKENS, int(chosen.cache_gib * GIB) // each)
    fits = int(_SHARE * free_memory(device_of(model))) // each
    return max(_LEAST_TOKENS, min(fits, _MOST_TOKENS))


def _bytes_per_token(model: Llama) -> int:
    config = model.config
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * model.model.norm.weight.element_size()


def _memory(model: Llama, engine: Engine) -> str:
    pool = engine.continuous.scheduler.pool
    tokens = pool.count * pool.size
    gib = tokens * _bytes_per_token(model) / GIB
    return f"the cache holds {tokens:,} positions in {gib:.2f} GiB; the model's context is {model.config.max_seq_len:,}"


def _fingerprint(model: Llama, tokenizer: str) -> str:
    """Short, and other for another architecture, vocabulary or version: OpenAI's `system_fingerprint`."""
    text = f"{__version__} {model.config} {tokenizer} {model.model.norm.weight.dtype} {device_of(model)}"
    return "herd_" + hashlib.sha256(text.encode()).hexdigest()[:12]


def _embedder(model: Llama) -> Embed:
    def embed(prompts: Sequence[Sequence[int]]) -> Iterator[list[float] | None]:
        return mean_hidden(model, prompts)

    return embed
