"""Stop texts: wherever tokens are cut, the text ends where a naive reading of its characters ends it."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from herd.errors import SettingError
from herd.generate import Request, Sampling
from herd.generate.engine import Engine
from herd.generate.stops import StopText
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.text import Tokenizer


class Pieces:
    """A decoder whose tokens are places in a list of texts; the last character is held back, as half of one."""

    def __init__(self, pieces):
        self.pieces, self.held = pieces, ""

    def push(self, token):
        text = self.held + self.pieces[token]
        self.held = text[-1:]
        return text[:-1]

    def flush(self):
        held, self.held = self.held, ""
        return held


def naive(text, stops):
    """Character by character: the first stop text that is complete, the longest of those that end together."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end - len(stop)], stop
    return text, ""


@given(
    st.lists(st.text("ab\n", max_size=5), max_size=8),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3).map(tuple),
)
@example(["a", "b", "a"], ("ab", "b"))
@example(["bca"], ("bca", "c"))
def test_the_text_does_not_depend_on_how_tokens_cut_it(pieces, stops):
    stream, shown = StopText(Pieces(pieces), stops), ""
    for token in range(len(pieces)):
        piece = stream.push(token)
        assert not (piece and stream.found and shown.endswith(stream.found))
        shown += piece
        assert naive("".join(pieces), stops)[0].startswith(shown)  # nothing shown has to be taken back
    shown += stream.flush()
    assert (shown, stream.found) == naive("".join(pieces), stops)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the cat sat on the mat. another cat came, and they sang — naïve café 😀"] * 20, 600)


@pytest.fixture(scope="module")
def model(tokenizer):
    model = Llama(LlamaConfig(tokenizer.vocab_size, 16, 1, 2, 1, 24, max_seq_len=256))
    with torch.no_grad():
        init_weights(model, 1)
    return model


def test_completions_end_with_the_token_that_completes_a_stop_text(model, tokenizer):
    plain = [Request((1, 2, 3), Sampling(seed=seed, max_tokens=60)) for seed in range(40)]
    stops = ("at", "e c", "é", ". ")
    stopped = [Request(r.prompt, Sampling(seed=r.sampling.seed, max_tokens=60, stop=stops)) for r in plain]
    engine = Engine(model, tokenizer=tokenizer)
    endings = set()
    for free, found in zip(engine.generate(plain), engine.generate(stopped), strict=True):
        text, stop = naive(tokenizer.decode(list(free.tokens), skip_special=True), stops)
        assert (found.text, found.stop) == (text, stop)
        assert found.tokens == free.tokens[: len(found.tokens)]
        assert found.finish == ("stop" if stop else "length")
        if stop:
            assert stop in tokenizer.decode(list(found.tokens), skip_special=True)
            assert stop not in tokenizer.decode(list(found.tokens[:-1]), skip_special=True)
        assert free.text is None
        endings.add(stop)
    assert len(endings) > 2


def test_a_stop_id_ends_the_text_and_is_no_part_of_it(model, tokenizer):
    stop_ids = tuple(range(0, tokenizer.vocab_size, 9))
    [found] = Engine(model, tokenizer=tokenizer).generate(
        [Request((5,), Sampling(stop="zzzzzz", stop_ids=stop_ids, max_tokens=100))]
    )
    assert found.finish == "stop"
    assert found.stop == ""
    assert found.text == tokenizer.decode(list(found.tokens[:-1]), skip_special=True)


def test_stop_texts_need_an_engine_that_knows_text(model):
    with pytest.raises(SettingError, match="stop texts") as caught:
        Engine(model).generate([Request((1,), Sampling(stop=("a",)))])
    assert "tokenizer" in caught.value.mend
    assert Sampling(stop="ab").stop == ("ab",)
