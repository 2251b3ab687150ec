"""A tokenizer, a server over a tiny random model that all tests of a module share, and the official client of it."""

from __future__ import annotations

import pytest
from serving import SETTINGS, engine_backend, running, tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def server(tokenizer):
    with running(engine_backend(tokenizer), SETTINGS) as found:
        yield found


@pytest.fixture
def client(server):
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found
