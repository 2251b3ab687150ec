"""`tokenizer.model` as content of a `tokenizer.json`: Llama 3's ranks (tiktoken's format) and Llama 2's sentencepiece.

    description = read_tokenizer_model("Llama-3.1-8B/original/tokenizer.model")

Not covered: sentencepiece's unigram models, and its normalisers other than none.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from herd.errors import FormatError, MissingExtraError
from herd.text import specials
from herd.text.descriptions import SPACE, byte_fallback_bpe, byte_level_bpe, merges_of_scores
from herd.text.token_bytes import byte_characters, is_byte_fallback

_PROBES = ("Hello, world!", "  two  spaces\n\n\tand a tab ", "Grüße 2024 नमस्ते 🦙 {}", "<s>", "")


def read_tokenizer_model(path: Path) -> dict[str, Any]:
    """The tokenizer.json of a tokenizer.model. FormatError for a file of neither kind."""
    data = path.read_bytes()
    first = data.split(b"\n", 1)[0].split()
    return from_ranks(data, str(path)) if len(first) == 2 and first[1].isdigit() else _from_sentencepiece(path)


def from_ranks(data: bytes, where: str) -> dict[str, Any]:
    """Lines of `<base64 of a token> <rank>`; the special tokens of Llama 3.1 follow the last rank."""
    ranks = _ranks(data, where)
    characters = byte_characters()
    spelled = {token: "".join(characters[byte] for byte in token) for token in ranks}
    vocab = {spelled[token]: rank for token, rank in ranks.items()}
    merges = [f"{spelled[left]} {spelled[right]}" for left, right in merges_of_ranks(ranks)]
    added = [(len(ranks) + i, name, True) for i, name in enumerate(specials.SPECIAL_TOKENS)]
    return byte_level_bpe(vocab, merges, added, (specials.BEGIN_OF_TEXT, len(ranks)))


def merges_of_ranks(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every two tokens that make a third, in the order of the third's rank: merging so gives tiktoken's ids."""
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        splits = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(ranks[a], ranks[b], a, b) for a, b in splits if a in ranks and b in ranks]
        merges += [(left, right) for _, _, left, right in sorted(known)]
    return merges


def _ranks(data: bytes, where: str) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise FormatError(
                "not a line of '<base64> <rank>'",
                where=f"{where}, line {number}",
                mend="the file is damaged or of another kind; download it again",
            ) from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise FormatError("the ranks are not 0, 1, 2, ...: lines are missing or doubled", where=where)
    return ranks


def _from_sentencepiece(path: Path) -> dict[str, Any]:
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtraError("sentencepiece", "sentencepiece") from error
    try:
        model: Any = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise FormatError(
            "neither tiktoken ranks nor a sentencepiece model", where=str(path), mend="download the file again"
        ) from error
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    control = [i for i in range(len(pieces)) if model.is_control(i) or model.is_unknown(i)]
    plain = {piece: model.get_score(i) for i, piece in enumerate(pieces) if i not in control and not model.is_byte(i)}
    bos = (pieces[model.bos_id()], model.bos_id()) if model.bos_id() >= 0 else None
    description = byte_fallback_bpe(
        {piece: i for i, piece in enumerate(pieces)},
        merges_of_scores(plain),
        [(i, pieces[i], True) for i in control],
        bos,
        pieces[model.unk_id()],
        space_prefix=bool(model.encode("a", out_type=str)[0].startswith(SPACE)),
    )
    _check_probes(description, model, str(path))
    return description


def _check_probes(description: dict[str, Any], model: Any, where: str) -> None:
    """FormatError unless the description encodes a few texts as sentencepiece does: other kinds of model differ."""
    from herd.text.encoder import text_encoder

    if text_encoder(description).encode_batch(_PROBES) != [model.encode(text) for text in _PROBES]:
        raise FormatError(
            "this sentencepiece model is not of Llama 2's kind (BPE with bytes, no normalisation)",
            where=where,
            mend="convert it to a tokenizer.json with transformers",
        )


def check_description(description: Any, where: str) -> None:
    """FormatError unless `description` has the shape of a BPE with the special tokens of a Llama."""
    shape = isinstance(description, dict) and isinstance(description.get("model"), dict)
    if not shape or description["model"].get("type", "BPE") != "BPE":
        raise FormatError("tokenizer.json does not describe a byte-pair tokenizer", where=where)
    model, added = description["model"], description.get("added_tokens")
    if not isinstance(model.get("vocab"), dict) or not isinstance(model.get("merges"), list):
        raise FormatError("tokenizer.json has no vocabulary or no merges", where=where)
    if not isinstance(added, list) or not all(isinstance(t, dict) and {"id", "content"} <= t.keys() for t in added):
        raise FormatError("tokenizer.json has no list of added tokens", where=where)
    if not all(isinstance(token["content"], str) and token["content"] for token in added):
        raise FormatError("an added token of tokenizer.json has no spelling", where=where)
    names = {token["content"] for token in added}
    if is_byte_fallback(description) and any(set(pair) <= names for pair in specials.ENDS):
        return
    if missing := [name for name in specials.REQUIRED if name not in names]:
        raise FormatError(
            f"the tokenizer lacks special tokens of Llama 3: {', '.join(missing)}",
            where=where,
            mend="give a tokenizer that was trained by herd or released with a Llama",
        )
