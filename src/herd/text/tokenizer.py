"""Byte-pair tokenizers of Llamas around Rust libraries: Llama 3's layout to train, load and save, Llama 2's to load.

    tokenizer = Tokenizer.load("Llama-3.1-8B")                           # a folder with its tokenizer files
    tokenizer = Tokenizer.load("Llama-3.1-8B/original/tokenizer.model")  # tiktoken's ranks, as Meta released them

Text is text: `encode` never produces a special id, even where the text spells `<|eot_id|>`. Special ids come from
`special(name)` and from the chat format (`herd.text.chat`) alone. Every byte is a token, so any text round-trips.
Ids are tiktoken's; Meta's reference cuts runs of more than 25,000 characters without a space first, this does not.

Not covered: normalisation (there is none, as in Llama 3), other pre-tokenisers for training, chats with tokenizers
that have no header tokens (Llama 2's: text goes in and out, `encode_prompt` refuses).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from herd.errors import ArtifactError, FormatError, HerdError, InputError, SettingError
from herd.files import read_json, write_json, write_text
from herd.text import specials
from herd.text.descriptions import LLAMA3_PATTERN, bos_first
from herd.text.encoder import text_encoder
from herd.text.folder_format import FolderFormat
from herd.text.folder_template import Stated, foreign_template, read_stated
from herd.text.model_files import check_description, read_tokenizer_model
from herd.text.template import CHAT_TEMPLATE
from herd.text.token_bytes import prefixes_space, token_bytes

MIN_VOCAB = 256 + specials.N_SPECIAL
CONTEXT_LENGTH = 131_072  # told to transformers as model_max_length


class Tokenizer:
    """Text to ids and back. Make one with `Tokenizer.train` or `Tokenizer.load`.

    tokenizer = Tokenizer.load("runs/nano/flagship")
    tokenizer.decode(tokenizer.encode("Grüezi")) == "Grüezi"
    """

    def __init__(self, description: dict[str, Any], *, where: str = "", stated: Stated | None = None) -> None:
        """`description` is the content of a `tokenizer.json`, `stated` what stands beside it; use `train` or `load`."""
        # Limits of other programs are left behind: nothing may cut a text in silence.
        self._description = description | {"truncation": None, "padding": None}
        self._specials = {t["content"]: int(t["id"]) for t in description["added_tokens"]}
        self._bytes = token_bytes(description, self._specials, where)
        self._encoder = text_encoder(description)
        self._special_ids = frozenset(self._specials.values())
        self.prefixes_space = prefixes_space(description)
        known = self._specials.get
        self._bos_name, end_name = _ends(self._specials)
        self.bos, self.end_of_text = self._specials[self._bos_name], self._specials[end_name]
        # Llama 3 of April 2024 has no padding, eom or python tag by name, Llama 2 no eot either.
        self.eot = known(specials.EOT, self.end_of_text)
        self.eom = known(specials.EOM, self.eot)
        self.pad = known(specials.PAD, self.end_of_text)
        self.python_tag = known(specials.PYTHON_TAG)
        stated = stated or Stated()
        self._stated = replace(stated, bos=stated.bos or self._bos_name, eos=stated.eos or end_name)
        if json.dumps(self._bos_name) not in json.dumps(self._description.get("post_processor")):
            self._description["post_processor"] = bos_first((self._bos_name, self.bos))

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
    def load(cls, path: str | Path) -> Tokenizer:
        """Read `tokenizer.json` or else `tokenizer.model` of a folder, or the file of either kind that is named.

        A tokenizer.model holds tiktoken's ranks (Llama 3) or sentencepiece's BPE (Llama 2). ArtifactError when there is
        none, FormatError when it is malformed or lacks special tokens.
        """
        path = _find(Path(path))
        where = str(path)
        description = read_tokenizer_model(path) if path.suffix == ".model" else read_json(path)
        check_description(description, where)
        try:
            return cls(description, where=where, stated=read_stated(path.parent))
        except HerdError:
            raise
        except Exception as error:  # the Rust libraries raise bare Exception
            raise FormatError(f"not a tokenizer that can be read: {error}", where=where) from error

    def save(self, folder: str | Path) -> None:
        """Write the files that transformers reads: tokenizer.json, its config, the special tokens, the template."""
        folder = Path(folder)
        name_of = {number: name for name, number in self._specials.items()}
        # What ends an answer: as the model's own template has it, or as herd's does.
        theirs = self._stated.eos if self._stated.template and self._stated.eos in self._specials else ""
        named = {
            "bos_token": self._bos_name,
            "eos_token": theirs or name_of[self.eot],
            "pad_token": name_of[self.pad],
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
        }
        if template := self._stated.template or (CHAT_TEMPLATE if self._has_headers else ""):
            config["chat_template"] = template
            write_text(folder / "chat_template.jinja", template)
        write_json(folder / "tokenizer.json", self._description)
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", named)

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text; never a special id and no begin-of-text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        try:
            return self._encoder.encode_batch(texts)
        except (TypeError, UnicodeEncodeError) as error:
            raise InputError(
                "a text cannot be written as UTF-8: it is not a string or holds half a surrogate pair",
                mend="decode the file it came from with errors='replace'",
            ) from error

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Text of `ids`. Bytes that are not UTF-8 become U+FFFD; special tokens are spelled or, if asked, skipped.

        A tokenizer of Llama 2's kind writes a space before every text; that one is taken off again.
        """
        raw = b"".join(self.token_bytes(i, skip_special) for i in ids)
        return (raw.removeprefix(b" ") if self.prefixes_space else raw).decode("utf-8", errors="replace")

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
            raise InputError(
                f"{name!r} is not a special token of this tokenizer",
                mend="" if self._has_headers else "it has no chat format; give the model plain text",
            )
        return self._specials[name]

    def is_special(self, token: int) -> bool:
        return token in self._special_ids

    @property
    def special_names(self) -> Collection[str]:
        return self._specials.keys()

    @cached_property
    def foreign_format(self) -> FolderFormat | None:
        """The chat format of the template that came with the tokenizer, where it differs from herd's.

        `encode_prompt` and `encode_dialogue` go by it. FormatError if the template cannot be run.
        """
        template = foreign_template(self._stated)
        return None if template is None else FolderFormat(self, template)

    @property
    def can_chat(self) -> bool:
        """Whether conversations can be written: with header tokens, or by the model's own template."""
        return self._has_headers or self.foreign_format is not None

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """End of text, eom and eot, and what else ends an answer by the model's own template."""
        try:
            more = self.foreign_format.stop_ids() if self.foreign_format else ()
        except InputError:  # a template that is broken says so where it is used
            more = ()
        return tuple(dict.fromkeys((self.end_of_text, self.eom, self.eot, *more)))

    @property
    def _has_headers(self) -> bool:
        return specials.START_HEADER in self._specials

    @property
    def vocab_size(self) -> int:
        """Byte-pair tokens and special tokens together: the rows of the embedding."""
        return len(self._bytes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over vocabulary, merges and special tokens: equal if and only if all ids mean the same.

        What Meta and Hugging Face call the reserved tokens makes no difference.
        """
        model = self._description["model"]
        merges = [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in model["merges"]]
        named = sorted((specials.released_name(name, i - self.bos), i) for name, i in self._specials.items())
        meaning = [sorted(model["vocab"].items()), merges, named]
        return hashlib.sha256(json.dumps(meaning, ensure_ascii=True).encode()).hexdigest()


def _find(path: Path) -> Path:
    found = [path] if path.is_file() else [path / "tokenizer.json", path / "tokenizer.model"]
    for candidate in found:
        if candidate.is_file():
            return candidate
    raise ArtifactError(
        "the folder has no tokenizer",
        where=str(found[0]),
        mend="give a model folder with its tokenizer.json or tokenizer.model",
    )


def _ends(names: dict[str, int]) -> tuple[str, str]:
    """The names of begin-of-text and end-of-text: Llama 3's, or else Llama 2's."""
    return next(pair for pair in specials.ENDS if all(name in names for name in pair))


def _with_specials(rust: Any) -> dict[str, Any]:
    """The trained tokenizer's description with the special tokens behind its vocabulary."""
    rust.add_special_tokens(list(specials.SPECIAL_TOKENS))
    bos = specials.BEGIN_OF_TEXT
    rust.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, rust.token_to_id(bos))]
    )
    description: dict[str, Any] = json.loads(rust.to_str())
    return description
