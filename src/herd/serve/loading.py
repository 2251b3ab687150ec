"""A model folder made ready to be served by the embedded engine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from herd import __version__
from herd.config import unknown
from herd.devices import GIB, device_of, free_memory
from herd.errors import SettingError
from herd.generate.embed import mean_hidden
from herd.generate.engine import Engine
from herd.generate.model_drafter import ModelDrafter
from herd.generate.prompt_lookup import PromptLookup
from herd.generate.settings import SchedulerSettings
from herd.generate.speculation import Drafter
from herd.kernels import status
from herd.llama.model import Llama
from herd.quantize.settings import policy_called
from herd.quantize.stream import quantised
from herd.serve.backend import Served
from herd.serve.engine_backend import Loaded
from herd.serve.settings import ServeSettings
from herd.text import Tokenizer
from herd.weights.build import own_dtype, place
from herd.weights.registry import open_model, tokenizer_of
from herd.weights.resident import fits, make_resident
from herd.weights.stored import StoredModel

PROMPT = "prompt"
CACHE_DTYPES = {"fp8": torch.float8_e4m3fn, "bf16": torch.bfloat16, "fp32": torch.float32}
_SHARE = 0.5  # of the memory that is free once the weights are there: for the cache, where nobody says how much
_MOST_TOKENS = 2**20  # and never more positions than this
_CONTEXTS = 2  # nor more whole contexts than this for each request that can run: what ended is kept in the rest
_LEAST_TOKENS = 256
_PROMPT_BUDGET = 512  # tokens of prompts in a step: what a long prompt may hold the others up by


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and what it may take. Of `cache_tokens` and `cache_gib` one is given, or none."""

    path: Path
    device: str = "auto"
    fp8: str = ""  # a policy's name: BF16 weights are quantised while they are read
    draft: str = ""  # the folder of a small model of the same herd, or "prompt": guesses out of the text itself
    cache_dtype: str = ""  # a name in CACHE_DTYPES; "": the model's
    cache_tokens: int = 0
    cache_gib: float = 0.0
    mapped: bool = False  # weights stay in the mapped file, even where a copy on large pages fits

    def __post_init__(self) -> None:
        if self.cache_dtype not in ("", *CACHE_DTYPES):
            raise unknown(self.cache_dtype, CACHE_DTYPES, "a dtype of the cache")
        if self.cache_tokens < 0 or self.cache_gib < 0:
            raise SettingError("the size of the cache is negative", where="cache", mend="give a positive one")
        if self.cache_tokens and self.cache_gib:
            raise SettingError(
                "the size of the cache is given twice", where="cache", mend="give tokens or GB, not both"
            )


def load(chosen: ModelSettings, settings: ServeSettings) -> Loaded:
    """Open the model and make its engine. Raises HerdError for what cannot be opened or does not fit."""
    remarks: list[str] = []
    stored = open_model(chosen.path)
    tokenizer = tokenizer_of(stored)
    if chosen.fp8:
        stored = quantised(stored, policy_called(chosen.fp8))
        remarks.append(f"matrices of the policy {chosen.fp8!r} became FP8")
    # The file's own dtype: who serves reads the weights for every token, and half the bytes are twice the speed.
    model = place(stored, chosen.device, remarks.append, choose=_as_stored)
    _settle(model, chosen, remarks, "weights")
    return make_ready(model, tokenizer, chosen, settings, remarks, _drafter(chosen, device_of(model), remarks))


def _as_stored(stored: StoredModel, device: torch.device) -> torch.dtype:
    return own_dtype(stored)


def _settle(model: Llama, chosen: ModelSettings, remarks: list[str], what: str) -> None:
    """Weights that are read for every token lie on large pages, where that is wanted and memory allows."""
    if not chosen.mapped and fits(model):
        gib = make_resident(model) / GIB
        remarks.append(f"{gib:.2f} GiB of {what} lie on large pages; --mapped leaves them in the file")


def _drafter(chosen: ModelSettings, device: torch.device, remarks: list[str]) -> Drafter | None:
    if not chosen.draft:
        return None
    if chosen.draft == PROMPT:
        remarks.append("what comes next is guessed out of the text itself, and checked")
        return PromptLookup()
    stored = open_model(Path(chosen.draft))
    model = place(stored, str(device), choose=_as_stored)
    _settle(model, chosen, remarks, "the drafter's weights")
    remarks.append(f"{chosen.draft} guesses what comes next, and the model checks it")
    return ModelDrafter(model, tokenizer_of(stored))


def make_ready(
    model: Llama,
    tokenizer: Tokenizer,
    chosen: ModelSettings,
    settings: ServeSettings,
    remarks: Sequence[str] = (),
    drafter: Drafter | None = None,
) -> Loaded:
    """The engine over a model that is there, and what is to be known of both."""
    engine = Engine(
        model,
        cache_tokens=_cache_tokens(model, chosen, settings),
        tokenizer=tokenizer,
        drafter=drafter,
        cache_dtype=CACHE_DTYPES.get(chosen.cache_dtype),
        scheduling=SchedulerSettings(
            settings.max_running,
            token_budget=settings.max_running + _PROMPT_BUDGET,
            max_waiting=settings.max_running + settings.max_queue,
        ),
    )
    pool = engine.continuous.scheduler.pool  # made here, so that a cache that does not fit is an error of the start
    served = Served(
        tokenizer=tokenizer,
        context=model.config.max_seq_len,
        room=min(model.config.max_seq_len, pool.count * pool.size),
        vocab_size=model.config.vocab_size,
        fingerprint=_fingerprint(model, tokenizer.fingerprint),
        created=int(time.time()),
        remarks=(*remarks, status(), _memory(model, engine, chosen)),
    )
    return Loaded(engine, served, partial(mean_hidden, model))


def _cache_tokens(model: Llama, chosen: ModelSettings, settings: ServeSettings) -> int:
    if chosen.cache_tokens:
        return chosen.cache_tokens
    each = _bytes_per_token(model, chosen.cache_dtype)
    if chosen.cache_gib:
        return max(_LEAST_TOKENS, int(chosen.cache_gib * GIB) // each)
    fits = int(_SHARE * free_memory(device_of(model))) // each
    useful = _CONTEXTS * settings.max_running * model.config.max_seq_len
    return max(_LEAST_TOKENS, min(fits, useful, _MOST_TOKENS))


def _bytes_per_token(model: Llama, cache_dtype: str) -> int:
    """As `PagedCache` lays it out: FP8 has a scale of four bytes for each key and each value of a head."""
    config, dtype = model.config, CACHE_DTYPES.get(cache_dtype, model.model.norm.weight.dtype)
    of_head = config.head_dim * dtype.itemsize + (4 if cache_dtype == "fp8" else 0)
    return 2 * config.n_layers * config.n_kv_heads * of_head


def _memory(model: Llama, engine: Engine, chosen: ModelSettings) -> str:
    pool = engine.continuous.scheduler.pool
    tokens = pool.count * pool.size
    gib = tokens * _bytes_per_token(model, chosen.cache_dtype) / GIB
    return f"the cache holds {tokens:,} positions in {gib:.2f} GiB; the model's context is {model.config.max_seq_len:,}"


def _fingerprint(model: Llama, tokenizer: str) -> str:
    """Short, and other for another architecture, vocabulary or version: OpenAI's `system_fingerprint`."""
    text = f"{__version__} {model.config} {tokenizer} {model.model.norm.weight.dtype} {device_of(model)}"
    return "herd_" + hashlib.sha256(text.encode()).hexdigest()[:12]
