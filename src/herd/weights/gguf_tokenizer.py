"""A tokenizer inside a GGUF file: `tokenizer.json` into `tokenizer.ggml.*` and back. Imports no torch.

    metadata = to_metadata(folder, vocab_size=128_256)       # of a folder with Hugging Face's tokenizer files
    GgufTokenizer(metadata, where).save(folder)              # those files again, template included

Two kinds: byte-level BPE with Llama 3's pre-tokeniser ("gpt2" with "llama-bpe", merges listed), and the byte-fallback
BPE of Llama 2 and the small models ("llama", where scores order the merges). A pre-tokeniser that llama.cpp would
replace by its own in silence is refused. Rows of the embedding beyond the vocabulary become unused tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from herd.errors import ArtifactError, FormatError
from herd.files import read_json, write_json, write_text
from herd.text.descriptions import LLAMA3_PATTERN, byte_fallback_bpe, byte_level_bpe, merges_of_scores

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's kinds of token
_KEY = "tokenizer.ggml."
# GGUF's key of a special token -> the names it has in Llama's vocabularies.
_NAMED = {"eot": "<|eot_id|>", "eom": "<|eom_id|>"}


def to_metadata(folder: Path, vocab_size: int) -> dict[str, Any]:
    """The `tokenizer.*` keys of a folder's tokenizer; for a model whose embedding has `vocab_size` rows."""
    path = folder / "tokenizer.json"
    description = read_json(path)
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    model = description.get("model") if isinstance(description, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise FormatError("tokenizer.json has no vocabulary", where=str(path))
    if model.get("byte_fallback"):
        said = _byte_fallback(description)
    else:
        _check_byte_level(description, str(path))
        said = {"model": "gpt2", "pre": "llama-bpe", "merges": [_spelled(pair) for pair in model["merges"]]}
    tokens, kinds = _tokens(description, vocab_size, str(path))
    said |= {"tokens": tokens, "token_type": kinds} | _special_ids(description, config)
    if said["model"] == "llama":
        ranks: dict[str, float] = said.pop("ranks")
        said["scores"] = [ranks.get(token, 0.0) for token in tokens]
    template = _template(folder, config)
    return {_KEY + key: value for key, value in said.items()} | (
        {"tokenizer.chat_template": template} if template else {}
    )


def _check_byte_level(description: Mapping[str, Any], where: str) -> None:
    """ArtifactError unless llama.cpp's 'llama-bpe' would cut text as this tokenizer does."""
    steps = (description.get("pre_tokenizer") or {}).get("pretokenizers") or [description.get("pre_tokenizer") or {}]
    patterns = [step.get("pattern", {}).get("Regex") for step in steps if step.get("type") == "Split"]
    if patterns != [LLAMA3_PATTERN] or not description["model"].get("ignore_merges"):
        raise ArtifactError(
            "the tokenizer does not cut text as Llama 3 does; llama.cpp would cut it in another way in silence",
            where=where,
            mend="use a Llama 3 tokenizer, or leave the tokenizer files out and hand ids to llama.cpp",
        )


def _spelled(pair: Any) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)


def _byte_fallback(description: Mapping[str, Any]) -> dict[str, Any]:
    """Llama 2's kind: a token's score is minus the rank of the first merge that makes it."""
    ranks: dict[str, float] = {}
    for rank, pair in enumerate(description["model"]["merges"]):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        ranks.setdefault(left + right, -float(rank))
    return {"model": "llama", "pre": "default", "ranks": ranks, "add_space_prefix": _adds_space(description)}


def _adds_space(description: Mapping[str, Any]) -> bool:
    parts = [description.get("normalizer") or {}, description.get("pre_tokenizer") or {}]
    steps = [step for part in parts for step in (part.get("normalizers") or part.get("pretokenizers") or [part])]
    return any(
        step.get("type") == "Prepend" or (step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in steps
    )


def _tokens(description: Mapping[str, Any], vocab_size: int, where: str) -> tuple[list[str], list[int]]:
    """Every id's spelling and kind; ids that nobody names are padding."""
    vocab: dict[str, int] = description["model"]["vocab"]
    fallback, unknown = description["model"].get("byte_fallback"), description["model"].get("unk_token")
    table = {number: (token, kind_of(token) if fallback else NORMAL) for token, number in vocab.items()}
    for added in description.get("added_tokens") or []:
        kind = UNKNOWN if added["content"] == unknown else CONTROL if added.get("special") else USER_DEFINED
        table[int(added["id"])] = (added["content"], kind)
    if table and max(table) >= vocab_size:
        raise ArtifactError(
            f"the tokenizer has id {max(table)}, the embedding {vocab_size} rows",
            where=where,
            mend="the model and the tokenizer do not belong together",
        )
    listed = [table.get(number, (f"[PAD{number}]", UNUSED)) for number in range(vocab_size)]
    return [token for token, _ in listed], [kind for _, kind in listed]


def kind_of(token: str) -> int:
    """The kind of an ordinary token of a byte-fallback vocabulary: the byte <0x0A>, or a piece of text."""
    return BYTE if len(token) == 6 and token.startswith("<0x") and token.endswith(">") else NORMAL


def _special_ids(description: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    ids = {token["content"]: int(token["id"]) for token in description.get("added_tokens") or []}
    said: dict[str, Any] = {}
    for key, name in (("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")):
        stated = config.get(name)
        spelled = stated.get("content") if isinstance(stated, dict) else stated
        if spelled in ids:
            said[f"{key}_token_id"] = ids[spelled]
    said |= {f"{key}_token_id": ids[name] for key, name in _NAMED.items() if name in ids}
    said["add_bos_token"] = _begins_with_special(description) or bool(config.get("add_bos_token"))
    return said


def _begins_with_special(description: Mapping[str, Any]) -> bool:
    """Whether the post-processor puts a special token (begin of text) before every text."""
    steps = (description.get("post_processor") or {}).get("processors") or [description.get("post_processor") or {}]
    return any(step.get("single") and "SpecialToken" in step["single"][0] for step in steps)


def _template(folder: Path, config: Mapping[str, Any]) -> str:
    stated = config.get("chat_template")
    if isinstance(stated, list):  # several, by name
        stated = next((each["template"] for each in stated if each.get("name") == "default"), None)
    if isinstance(stated, str):
        return stated
    path = folder / "chat_template.jinja"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


class GgufTokenizer:
    """The tokenizer that a GGUF file holds; `save` writes it as Hugging Face's files."""

    def __init__(self, metadata: Mapping[str, Any], where: str) -> None:
        self._said, self._where = metadata, where
        self._tokens: list[str] = self._list("tokens", str)
        has_kinds = bool(self._said.get(_KEY + "token_type"))
        self._kinds = self._for_each("token_type", int) if has_kinds else [NORMAL] * len(self._tokens)

    def _get(self, key: str, kind: type) -> Any:
        value = self._said.get(_KEY + key)
        if not isinstance(value, kind):
            raise FormatError(f"{_KEY}{key} is missing or no {kind.__name__}", where=self._where)
        return value

    def _list(self, key: str, kind: type) -> list[Any]:
        values: list[Any] = self._get(key, list)
        if not all(isinstance(value, kind) for value in values):
            raise FormatError(f"{_KEY}{key} is no list of {kind.__name__}", where=self._where)
        return values

    def _for_each(self, key: str, kind: type) -> list[Any]:
        """One value for each token."""
        values = self._list(key, kind)
        if len(values) != len(self._tokens):
            raise FormatError(f"{len(self._tokens)} tokens have {len(values)} {_KEY}{key}", where=self._where)
        return values

    def _id(self, key: str) -> int | None:
        value = self._said.get(f"{_KEY}{key}_token_id")
        return value if isinstance(value, int) and 0 <= value < len(self._tokens) else None

    @property
    def bos(self) -> int:
        found = self._id("bos")
        return 0 if found is None else found

    @property
    def template(self) -> str:
        """The chat template, "" for none."""
        template = self._said.get("tokenizer.chat_template")
        return template if isinstance(template, str) else ""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """End of text first, then end of message and of turn, as in the released generation_config.json."""
        text = [number for number, token in enumerate(self._tokens) if token == "<|end_of_text|>"]
        found = [*text[:1], self._id("eom"), self._id("eot"), self._id("eos")]
        return tuple(dict.fromkeys(number for number in found if number is not None))

    def description(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        kind = self._get("model", str)
        special = {UNKNOWN, CONTROL, USER_DEFINED}
        added = [(n, t, k != USER_DEFINED) for n, t, k in self._numbered() if k in special]
        bos = (self._tokens[self.bos], self.bos) if self._adds_bos() else None
        if kind == "gpt2":
            pre = self._said.get(_KEY + "pre")
            if pre != "llama-bpe":
                raise ArtifactError(f"the pre-tokeniser is {pre!r}; 'llama-bpe' is read here", where=self._where)
            vocab = {token: number for number, token, kind in self._numbered() if kind == NORMAL}
            return byte_level_bpe(vocab, self._list("merges", str), added, bos)
        if kind != "llama":
            raise ArtifactError(f"a tokenizer of kind {kind!r} is not read here", where=self._where)
        vocab = {token: number for number, token, kind in self._numbered() if kind != USER_DEFINED}
        scores = self._for_each("scores", float)
        normal = {token: scores[number] for number, token, kind in self._numbered() if kind == NORMAL}
        unknown = next((token for _, token, kind in self._numbered() if kind == UNKNOWN), None)
        prefix = bool(self._said.get(_KEY + "add_space_prefix", True))
        return byte_fallback_bpe(vocab, merges_of_scores(normal), added, bos, unknown, prefix)

    def _numbered(self) -> list[tuple[int, str, int]]:
        rows = zip(range(len(self._tokens)), self._tokens, self._kinds, strict=True)
        return [row for row in rows if row[2] != UNUSED]

    def _adds_bos(self) -> bool:
        return bool(self._said.get(_KEY + "add_bos_token", True)) and self._id("bos") is not None

    def save(self, folder: Path) -> None:
        """tokenizer.json, tokenizer_config.json, special_tokens_map.json and, if there is one, the template."""
        pairs = (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding"))
        ids = {name: self._id(key) for name, key in pairs}
        named = {name: self._tokens[number] for name, number in ids.items() if number is not None}
        description = self.description()
        decoder = {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in description["added_tokens"]
        }
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **named,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": self._said.get("llama.context_length"),
            "added_tokens_decoder": decoder,
        }
        if self.template:
            config["chat_template"] = self.template
            write_text(folder / "chat_template.jinja", self.template)
        write_json(folder / "tokenizer.json", description)
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", named)
