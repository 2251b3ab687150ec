"""Byte-level BPE with Llama 3's pre-tokeniser and special tokens, around the Rust library `tokenizers`.

Text is text: `encode` never produces a special id, even where the text spells `<|eot_id|>`. Special ids come from
`special(name)` and from the chat format (`herd.text.chat`) alone. Every byte is a token, so any text round-trips.

Not covered: reading Meta's `tokenizer.model`, normalisation (there is none, as in Llama 3), other pre-tokenisers
for training (loading takes any byte-level BPE that has the Llama 3.1 special tokens).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from herd.errors import ArtifactError, FormatError, HerdError, InputError, SettingError
from herd.files import read_json, write_json, write_text
from herd.text import specials
from herd.text.template import CHAT_TEMPLATE

# Llama 3's pre-tokeniser: the pieces inside which byte pairs are merged (Meta's reference tokenizer.py).
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MIN_VOCAB = 256 + specials.N_SPECIAL
CONTEXT_LENGTH = 131_072  # told to transformers as model_max_length


class Tokenizer:
    """Text to ids and back. Make one with `Tokenizer.train` or `Tokenizer.load`.

    tokenizer = Tokenizer.load("runs/nano/flagship")
    tokenizer.decode(tokenizer.encode("Grüezi")) == "Grüezi"
    """

    def __init__(self, description: dict[str, Any], *, where: str = "") -> None:
        """`description` is the content of a `tokenizer.json`; use `train` or `load`."""
        self._description = description
        # The encoder knows no special token: what it has never heard of it cannot produce.
        ordinary = {**description, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        self._rust: Any = tokenizers.Tokenizer.from_str(json.dumps(ordinary))
        self._specials = {t["content"]: int(t["id"]) for t in description["added_tokens"]}
        self._bytes = _token_bytes(description["model"]["vocab"], self._specials, where)
        self._special_ids = frozenset(self._specials.values())
        self.bos = self._specials[specials.BEGIN_OF_TEXT]
        self.end_of_text = self._specials[specials.END_OF_TEXT]
        self.pad = self._specials[specials.PAD]
        self.eom = self._specials[specials.EOM]
        self.eot = self._specials[specials.EOT]
        self.stop_ids = (self.end_of_text, self.eom, self.eot)  # Meta's three

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = MIN_VOCAB) -> Tokenizer:
        """Learn merges from `texts`; the same texts give the same tokenizer.

        `vocab_size` counts the 256 special tokens too (the released one: 128,256). Texts too small to teach that many
        merges give a smaller vocabulary, and none at all give bytes: read `.vocab_size` of the result.
        """
        if vocab_size < MIN_VOCAB:
            raise SettingError(
                f"a vocabulary of {vocab_size} has no room for 256 bytes and {specials.N_SPECIAL} special tokens",
                where="vocab_size",
                mend=f"ask for {MIN_VOCAB} at least",
            )
        rust: Any = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
        rust.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(LLAMA3_PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        rust.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - specials.N_SPECIAL,
            min_frequency=2,  # a pair seen once teaches nothing
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        rust.train_from_iterator(texts, trainer)
        return cls(_with_specials(rust))

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read `folder/tokenizer.json`: ours, or any byte-level BPE with Llama 3.1's special tokens.

        ArtifactError when it is missing, FormatError when it is malformed or lacks special tokens.
        """
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(
                "the folder has no tokenizer",
                where=str(path),
                mend="give a model folder that was saved with its tokenizer",
            )
        description = read_json(path)
        _check(description, str(path))
        try:
            return cls(description, where=str(path))
        except HerdError:
            raise
        except Exception as error:  # the Rust library raises bare Exception
            raise FormatError(f"not a tokenizer that can be read: {error}", where=str(path)) from error

    def save(self, folder: str | Path) -> None:
        """Write the files that transformers reads: tokenizer.json, its config, the special tokens, the template."""
        folder = Path(folder)
        named = {
            "bos_token": specials.BEGIN_OF_TEXT,
            "eos_token": specials.EOT,
            "pad_token": specials.PAD,
        }
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **named,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": CONTEXT_LENGTH,
            "added_tokens_decoder": {
                str(token["id"]): {k: v for k, v in token.items() if k != "id"}
                for token in self._description["added_tokens"]
            },
            "chat_template": CHAT_TEMPLATE,
        }
        write_json(folder / "tokenizer.json", self._description)
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", named)
        write_text(folder / "chat_template.jinja", CHAT_TEMPLATE)

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text; never a special id and no begin-of-text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        try:
            return [piece.ids for piece in self._rust.encode_batch_fast(list(texts), add_special_tokens=False)]
        except (TypeError, UnicodeEncodeError) as error:
            raise InputError(
                "a text cannot be written as UTF-8: it is not a string or holds half a surrogate pair",
                mend="decode the file it came from with errors='replace'",
            ) from error

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Text of `ids`. Bytes that are not UTF-8 become U+FFFD; special tokens are spelled or, if asked, skipped."""
        return b"".join(self.token_bytes(i, skip_special) for i in ids).decode("utf-8", errors="replace")

    def token_bytes(self, token: int, skip_special: bool = False) -> bytes:
        """The bytes that one id stands for (part of a character, perhaps)."""
        if not 0 <= token < len(self._bytes):
            raise InputError(
                f"id {token} is outside the vocabulary of {self.vocab_size}",
                mend="the model and the tokenizer do not belong together",
            )
        return b"" if skip_special and token in self._special_ids else self._bytes[token]

    def special(self, name: str) -> int:
        """The id of a special token, e.g. `special("<|python_tag|>")`."""
        if name not in self._specials:
            raise InputError(f"{name!r} is not a special token of this tokenizer")
        return self._specials[name]

    def is_special(self, token: int) -> bool:
        return token in self._special_ids

    @property
    def vocab_size(self) -> int:
        """Byte-pair tokens and special tokens together: the rows of the embedding."""
        return len(self._bytes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over vocabulary, merges and special tokens: equal if and only if all ids mean the same."""
        model = self._description["model"]
        merges = [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in model["merges"]]
        meaning = [sorted(model["vocab"].items()), merges, sorted(self._specials.items())]
        return hashlib.sha256(json.dumps(meaning, ensure_ascii=True).encode()).hexdigest()


def _with_specials(rust: Any) -> dict[str, Any]:
    """The trained tokenizer's description with the special tokens behind its vocabulary."""
    rust.add_special_tokens(list(specials.SPECIAL_TOKENS))
    bos = specials.BEGIN_OF_TEXT
    rust.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, rust.token_to_id(bos))]
    )
    description: dict[str, Any] = json.loads(rust.to_str())
    return description


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: a printable character for each byte, in which byte-level vocabularies are written."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def _token_bytes(vocab: dict[str, int], special_ids: dict[str, int], where: str) -> list[bytes]:
    """id -> bytes. FormatError if ids are not 0..V-1, a byte is missing, or a token is not byte-level."""
    byte_of = _byte_of_character()
    if missing := [character for character in byte_of if character not in vocab]:
        raise FormatError(f"not a byte-level vocabulary: {len(missing)} of the 256 bytes are no token", where=where)
    table: dict[int, bytes] = {}
    try:
        for token, number in vocab.items():
            table[number] = bytes(byte_of[character] for character in token)
    except KeyError as error:
        raise FormatError(f"not a byte-level vocabulary: it holds the token {token!r}", where=where) from error
    if len(table) != len(vocab):
        raise FormatError("two tokens share an id", where=where)
    table |= {number: name.encode() for name, number in special_ids.items()}
    if sorted(table) != list(range(len(vocab) + len(special_ids))):
        raise FormatError(
            f"the ids of {len(vocab)} tokens and {len(special_ids)} special tokens are not 0, 1, 2, ...",
            where=where,
        )
    return [table[i] for i in range(len(table))]


def _check(description: Any, where: str) -> None:
    """FormatError unless `description` has the shape of a byte-level BPE with Llama 3.1's special tokens."""
    shape = isinstance(description, dict) and isinstance(description.get("model"), dict)
    if not shape or description["model"].get("type", "BPE") != "BPE":
        raise FormatError("tokenizer.json does not describe a byte-pair tokenizer", where=where)
    model, added = description["model"], description.get("added_tokens")
    if not isinstance(model.get("vocab"), dict) or not isinstance(model.get("merges"), list):
        raise FormatError("tokenizer.json has no vocabulary or no merges", where=where)
    if not isinstance(added, list) or not all(isinstance(t, dict) and {"id", "content"} <= t.keys() for t in added):
        raise FormatError("tokenizer.json has no list of added tokens", where=where)
    names = {token["content"] for token in added}
    if missing := [name for name in specials.REQUIRED if name not in names]:
        raise FormatError(
            f"the tokenizer lacks special tokens of Llama 3.1: {', '.join(missing)}",
            where=where,
            mend="give a tokenizer that was trained by herd or released with Llama 3.1",
        )
