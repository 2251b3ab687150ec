"""The tokenizer: round trips, special tokens out of reach of text, files, fingerprints."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.errors import ArtifactError, FormatError, InputError, SettingError
from herd.text import Tokenizer
from herd.text.specials import SPECIAL_TOKENS
from herd.text.tokenizer import LLAMA3_PATTERN

regex = pytest.importorskip("regex", reason="the independent pattern engine comes with transformers")

spelled = st.sampled_from(SPECIAL_TOKENS)
scraps = st.sampled_from(["they'LL ", "12345", " \r\n\n  x", "नमस्ते", "สวัสดี", "🦙", "\u00a0\u3000", "_a-b"])
any_text = st.lists(st.text() | spelled | scraps).map("".join)


def test_special_tokens_have_the_released_order():
    assert len(SPECIAL_TOKENS) == len(set(SPECIAL_TOKENS)) == 256
    place = SPECIAL_TOKENS.index  # released id - 128,000 (facts 2.1)
    assert place("<|begin_of_text|>") == 0
    assert place("<|end_of_text|>") == 1
    assert place("<|reserved_special_token_1|>") == 3
    assert place("<|finetune_right_pad_id|>") == 4
    assert place("<|start_header_id|>") == 6
    assert place("<|end_header_id|>") == 7
    assert place("<|eom_id|>") == 8
    assert place("<|eot_id|>") == 9
    assert place("<|python_tag|>") == 10
    assert place("<|reserved_special_token_2|>") == 12
    assert place("<|reserved_special_token_245|>") == 255


def test_specials_stand_behind_the_learned_tokens(tokenizer):
    first = tokenizer.vocab_size - 256
    assert [tokenizer.special(name) for name in SPECIAL_TOKENS] == list(range(first, first + 256))
    assert tokenizer.bos == first
    assert tokenizer.stop_ids == (first + 1, first + 8, first + 9)
    assert tokenizer.pad == first + 4


@settings(deadline=None)
@given(any_text)
def test_every_text_round_trips_without_special_ids(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not any(tokenizer.is_special(i) for i in ids)
    assert tokenizer.encode_batch([text, "x", text]) == [ids, tokenizer.encode("x"), ids]


def test_every_byte_is_a_token(tokenizer):
    assert {tokenizer.token_bytes(i) for i in range(256)} == {bytes([b]) for b in range(256)}


@settings(deadline=None)
@given(st.lists(st.integers(0, 255)))
def test_any_ids_decode_as_python_decodes_their_bytes(tokenizer, ids):
    raw = b"".join(tokenizer.token_bytes(i) for i in ids)
    assert tokenizer.decode(ids) == raw.decode("utf-8", errors="replace")


@settings(deadline=None)
@given(any_text)
def test_no_token_crosses_a_border_of_the_llama_pattern(tokenizer, text):
    # `regex` is an independent engine; encoding each of its pieces alone must give the same ids.
    pieces = regex.findall(LLAMA3_PATTERN, text)
    assert "".join(pieces) == text
    assert [i for piece in pieces for i in tokenizer.encode(piece)] == tokenizer.encode(text)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("12345", ["123", "45"]),
        ("I'LL can't", ["I", "'LL", " can", "'t"]),
        ("\n\n  y", ["\n\n", " ", " y"]),
        ("foo_bar", ["foo", "_bar"]),
    ],
)
def test_pattern_splits_as_the_reference(text, pieces):
    assert regex.findall(LLAMA3_PATTERN, text) == pieces


def test_training_learns_and_is_deterministic(tokenizer, texts):
    again = Tokenizer.train(iter(texts), 900)
    assert again.fingerprint == tokenizer.fingerprint
    assert Tokenizer.train(texts[:3], 900).fingerprint != tokenizer.fingerprint
    assert len(tokenizer.encode(texts[0])) < len(texts[0]) / 3


def test_untrained_tokenizer_has_bytes_and_specials():
    plain = Tokenizer.train([])
    assert plain.vocab_size == 512
    assert len(plain.encode("Grüße")) == len("Grüße".encode())


def test_vocabulary_size_is_what_was_asked_for():
    texts = [f"word{i} other{i * 7919 % 1000} thing{i * i % 977} " * 2 for i in range(3000)]
    assert Tokenizer.train(texts, 1500).vocab_size == 1500
    with pytest.raises(SettingError, match="no room"):
        Tokenizer.train(texts, 511)


def test_save_and_load_give_the_same_tokenizer(tokenizer, texts, tmp_path):
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert [loaded.encode(text) for text in texts] == [tokenizer.encode(text) for text in texts]
    assert (loaded.bos, loaded.stop_ids) == (tokenizer.bos, tokenizer.stop_ids)
    loaded.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_fingerprint_sees_specials_and_merges(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    description = json.loads(path.read_text())
    description["added_tokens"][255]["content"] = "<|mine|>"
    path.write_text(json.dumps(description))
    assert Tokenizer.load(tmp_path).fingerprint != tokenizer.fingerprint
    description["added_tokens"][255]["content"] = "<|reserved_special_token_245|>"
    description["model"]["merges"].reverse()
    path.write_text(json.dumps(description))
    assert Tokenizer.load(tmp_path).fingerprint != tokenizer.fingerprint


def test_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_cut_off_file_is_named(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text()[:1000])
    with pytest.raises(FormatError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def _without(name):
    def change(description):
        description["added_tokens"] = [t for t in description["added_tokens"] if t["content"] != name]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("<|eot_id|>"), r"lacks special tokens.*<\|eot_id\|>"),
        (_without("<|reserved_special_token_9|>"), "are not 0, 1, 2"),
        (lambda d: d["model"].update(type="WordPiece"), "byte-pair"),
        (lambda d: d.pop("model"), "byte-pair"),
        (lambda d: d["model"].pop("merges"), "no merges"),
        (lambda d: d.update(added_tokens=[7]), "added tokens"),
        (lambda d: d["added_tokens"][20].update(content=[5]), "no spelling"),
        (lambda d: d["added_tokens"][20].update(content=""), "no spelling"),
        (lambda d: d["model"]["vocab"].pop("A"), "byte-level"),
        (lambda d: d["model"]["vocab"].update({"▁a": 0}), "byte-level"),
        (lambda d: d["model"]["vocab"].update({"A": 0}), "share an id"),
        (lambda d: d["model"]["merges"].append(["q", "x"]), "tokenizer"),
        (lambda d: d.update(pre_tokenizer={"type": "Nonsense"}), "tokenizer"),
    ],
)
def test_malformed_tokenizers_are_refused(tokenizer, tmp_path, change, message):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))
    with pytest.raises(FormatError, match=message):
        Tokenizer.load(tmp_path)


def test_no_merge_is_left_to_chance(tokenizer, texts, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    description = json.loads(path.read_text())
    description["model"]["dropout"] = 0.5
    path.write_text(json.dumps(description))
    assert Tokenizer.load(tmp_path).encode_batch(texts) == tokenizer.encode_batch(texts)


def test_text_that_is_not_utf8_is_refused(tokenizer):
    with pytest.raises(InputError, match="UTF-8"):
        tokenizer.encode("half a pair: \ud83e")


def test_foreign_ids_are_refused(tokenizer):
    with pytest.raises(InputError, match="outside the vocabulary"):
        tokenizer.decode([tokenizer.vocab_size])
    with pytest.raises(InputError, match="not a special token"):
        tokenizer.special("the")


def test_specials_are_spelled_or_skipped(tokenizer):
    ids = [tokenizer.bos, *tokenizer.encode("hi"), tokenizer.eot]
    assert tokenizer.decode(ids) == "<|begin_of_text|>hi<|eot_id|>"
    assert tokenizer.decode(ids, skip_special=True) == "hi"
