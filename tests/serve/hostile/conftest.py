"""A server that asks for a key, and bytes sent to it as they are."""

from __future__ import annotations

import sys

import pytest
from hostile_client import KEY, Raw
from serving import engine_backend, quick, running


@pytest.fixture(scope="module", params=["httptools", "h11"])
def raw(tokenizer, request):
    """`raw(data)` gives what the server sends until it closes, or has said nothing for a while; with either parser."""
    settings = quick(head_seconds=1.0, body_seconds=1.0)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "h11":
            patch.setitem(sys.modules, "uvicorn.protocols.http.httptools_impl", None)
        with running(engine_backend(tokenizer), settings, keys=[KEY]) as server:
            yield Raw(server)
