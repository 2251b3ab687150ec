"""Streaming: pieces are whole characters and add up to the text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from herd.text import StreamDecoder


def pieces(tokenizer, ids, **options):
    decoder = StreamDecoder(tokenizer, **options)
    return [*(decoder.push(i) for i in ids), decoder.flush()]


@settings(deadline=None)
@given(st.text())
def test_valid_text_comes_without_replacement_characters(tokenizer, text):
    # Byte by byte is the worst case: ids below 256 are the single bytes.
    byte_id = {tokenizer.token_bytes(i): i for i in range(256)}
    for ids in (tokenizer.encode(text), [byte_id[bytes([b])] for b in text.encode()]):
        parts = pieces(tokenizer, ids)
        assert "".join(parts) == text
        assert parts[-1] == ""
        assert all("\ufffd" not in part or "\ufffd" in text for part in parts)


@settings(deadline=None)
@given(st.data())
def test_any_ids_stream_as_they_decode(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1) | st.integers(100, 255)))
    for skip in (False, True):
        parts = pieces(tokenizer, ids, skip_special=skip)
        assert "".join(parts) == tokenizer.decode(ids, skip_special=skip)
        for part in parts:
            part.encode("utf-8")  # half a character would be a surrogate


def test_a_character_in_parts_is_held_back(tokenizer):
    byte_id = {tokenizer.token_bytes(i): i for i in range(256)}
    llama = [byte_id[bytes([b])] for b in "🦙".encode()]
    assert pieces(tokenizer, llama) == ["", "", "", "🦙", ""]
    assert pieces(tokenizer, llama[:2]) == ["", "", "\ufffd"]
    assert pieces(tokenizer, [*llama[:3], *tokenizer.encode("a")]) == ["", "", "", "\ufffda", ""]
    assert pieces(tokenizer, [*llama[:3], tokenizer.eot])[3] == "\ufffd<|eot_id|>"


def test_decoder_can_be_used_again_after_a_flush(tokenizer):
    decoder = StreamDecoder(tokenizer)
    byte_id = {tokenizer.token_bytes(i): i for i in range(256)}
    decoder.push(byte_id[b"\xf0"])
    assert decoder.flush() == "\ufffd"
    assert decoder.push(tokenizer.encode("x")[0]) == "x"
