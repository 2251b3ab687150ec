"""A small tokenizer trained on several scripts, shared by the tests of the text room."""

import pytest

from herd.text import Tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's 12345 o'clock, and they'LL be back.\n\n" * 3,
    "def f(x):\n    return x + 1\n\n\ndef g(y):\n    return f(y) * 2\n" * 5,
    "¿Cómo estás? Schöne Grüße aus Köln. Où es-tu, mon élève?\r\n" * 4,
    "नमस्ते दुनिया, आप कैसे हैं? สวัสดีชาวโลก 🦙🦙\n" * 4,
    '{"type": "function", "name": "add", "parameters": {"a": 1, "b": [2, 3]}}' * 3,
    "<|eot_id|> system user assistant ipython <|start_header_id|>" * 3,
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 900)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """What `tokenizer` was trained on."""
    return TEXTS
