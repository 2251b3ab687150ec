"""A server that asks for a key, and bytes sent to it as they are."""

from __future__ import annotations

import pytest
from hostile_client import KEY, Raw
from serving import engine_backend, quick, running


@pytest.fixture(scope="module")
def raw(tokenizer):
    """`raw(data)` gives what the server sends until it closes, or has said nothing for a while."""
    with running(engine_backend(tokenizer), quick(head_seconds=1.0, body_seconds=1.0), keys=[KEY]) as server:
        yield Raw(server)
