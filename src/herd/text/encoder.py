"""Ordinary text to ids by a Rust library: the step that tokenising a corpus waits for.

Llama 3's layout goes through `fastokens`, which gives tiktoken's ids several times as fast (`python -m bench text`).
Every other tokenizer.json goes through `tokenizers`, the library that the file format belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import fastokens
import numpy as np
import tokenizers

from herd.text.descriptions import LLAMA3_PATTERN

_BARE_MODEL = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "fuse_unk", "unk_token")


class TextEncoder(Protocol):
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text. TypeError or UnicodeEncodeError for what is no text."""
        ...


def text_encoder(description: Mapping[str, Any]) -> TextEncoder:
    """The encoder of a tokenizer.json. It knows no special token: what it has never heard of it cannot produce.

    The libraries raise ValueError or a bare Exception for a description that they cannot read.
    """
    names = {token["content"] for token in description["added_tokens"]}
    model = {**description["model"], "dropout": None}  # merges left out by chance are for training alone
    # A special token that stands in the vocabulary too could be merged together out of text that spells it.
    model["merges"] = [merge for merge in model["merges"] if _product(merge) not in names]
    if not model.get("byte_fallback"):
        model["vocab"] = {token: number for token, number in model["vocab"].items() if token not in names}
    bare: dict[str, Any] = {
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
        "model": model,
    }
    text = json.dumps({**description, **bare})
    return _Fast(text) if is_llama3(description) else _General(text)


def is_llama3(description: Mapping[str, Any]) -> bool:
    """Whether text is cut by Llama 3's pattern, spelled in bytes, and changed in no other way."""
    steps = (description.get("pre_tokenizer") or {}).get("pretokenizers") or []
    if len(steps) != 2 or description.get("normalizer") or any(description["model"].get(key) for key in _BARE_MODEL):
        return False
    split, spell = steps
    cut = {key: split.get(key) for key in ("type", "pattern", "behavior", "invert")}
    return cut == {
        "type": "Split",
        "pattern": {"Regex": LLAMA3_PATTERN},
        "behavior": "Isolated",
        "invert": False,
    } and (spell.get("type"), spell.get("add_prefix_space"), spell.get("use_regex")) == ("ByteLevel", False, False)


def _product(merge: Any) -> str:
    return merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge)


class _Fast:
    def __init__(self, description: str) -> None:
        self._rust: Any = fastokens.Tokenizer.from_json_str(description)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        ids, offsets = self._rust.encode_batch_flat(list(texts), add_special_tokens=False)
        flat, ends = np.frombuffer(ids, dtype="<u4").tolist(), np.frombuffer(offsets, dtype="<u8").tolist()
        return [flat[begin:end] for begin, end in pairwise(ends)]


class _General:
    def __init__(self, description: str) -> None:
        self._rust: Any = tokenizers.Tokenizer.from_str(description)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [piece.ids for piece in self._rust.encode_batch_fast(list(texts), add_special_tokens=False)]
