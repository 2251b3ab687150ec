"""A tokenizer, a server over a tiny random model that all tests of a module share, and the official client of it."""

from __future__ import annotations

import pytest
from serving import SETTINGS, Scripted, engine_backend, running, tiny_tokenizer


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


@pytest.fixture
def scripted(tokenizer):
    """A client of a server that gives the replies it is told; `ask(replies)` enters it."""
    import openai

    entered = []

    def ask(replies, **options):
        backend = Scripted(tokenizer, replies, **options)
        context = running(backend)
        entered.append(context)
        server = context.__enter__()
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        entered.append(client)
        return client, backend

    yield ask
    for one in reversed(entered):
        one.__exit__(None, None, None)
