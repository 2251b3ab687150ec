"""Tokenizers and their grammars, made once for the tests of a file; and levels of the compiled kernels."""

import pytest
from grammar_walks import CORPUS, data

from herd.generate.grammars import Grammars
from herd.text.tokenizer import Tokenizer
from kernel_levels import compiled, level  # noqa: F401


@pytest.fixture(scope="module")
def trained():
    return Tokenizer.train(CORPUS, 700)


@pytest.fixture(scope="module")
def llama2():
    pytest.importorskip("sentencepiece")
    return Tokenizer.load(data("checkpoints/llama2_tokenizer/tokenizer.model"))


@pytest.fixture(scope="module")
def grammars(trained):
    return Grammars(trained, trained.vocab_size + 7)
