"""What the tests of the server share: a tiny model behind a real socket, and a backend that says what it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from herd.generate.protocol import Completion, Request
from herd.llama.config import LlamaConfig
from herd.serve.app import create_app
from herd.serve.backend import Ended, Load, Said, Served
from herd.serve.engine_backend import EngineBackend
from herd.serve.loading import ModelSettings, make_ready
from herd.serve.server import address, listen, make_server
from herd.serve.settings import ServeSettings
from herd.serve.wire.chat import ChatChunk
from herd.text import Tokenizer
from stored_models import make_model

NAME = "tiny"
ASK = [{"role": "user", "content": "How is the weather in Bern?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string", "maxLength": 12}},
            "required": ["town"],
        },
    },
}
CALL = '{"type": "function", "name": "weather", "parameters": {"town": "Bern"}}'
SETTINGS = ServeSettings(name=NAME, port=0, max_running=8, max_queue=64, drain_seconds=5)
TEXTS = ["The quick brown fox says hello to the lazy dog, and the weather in Bern is fine today.\n" * 4]


def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 640)


def tiny_config(tokenizer: Tokenizer) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        dim=32,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        ffn_dim=64,
        max_seq_len=1024,
        rope_scaling=None,
    )


def engine_backend(tokenizer: Tokenizer, settings: ServeSettings = SETTINGS, cache_tokens: int = 8192) -> EngineBackend:
    model = make_model(tiny_config(tokenizer))
    chosen = ModelSettings(path=None, cache_tokens=cache_tokens)
    return EngineBackend(
        lambda: make_ready(model, tokenizer, chosen, settings), most=settings.max_running + settings.max_queue
    )


@dataclass
class Running:
    """A server in a thread of this process."""

    url: str
    backend: object
    app: object
    stop: Callable[[], None]
    n_connections: Callable[[], int]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def running(
    backend: object, settings: ServeSettings = SETTINGS, keys: Sequence[str] = (), *, wait: bool = True
) -> Iterator[Running]:
    listening = listen(settings)
    app = create_app(backend, settings, keys)
    server = make_server(app, backend, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = address(listening)
    try:
        wait_until(lambda: server.started and (not wait or is_ready(backend)))
        yield Running(url, backend, app, server.stop, lambda: len(server.server_state.connections))
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive(), "the server does not end"


def is_ready(backend: object) -> bool:
    try:
        return bool(backend.served)
    except Exception:
        return False


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """A bound against hanging, no measurement."""
    pause = threading.Event()
    for _ in range(round(seconds / 0.01)):
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come about")


class Scripted:
    """A backend that answers every request with the next of `replies`: texts, ids, or exceptions to raise.

    `{"ids": ...}` in a text is no special: special tokens are given as ids in a list of texts and ids. The last reply
    is given again and again. `asked` holds the requests.
    """

    def __init__(self, tokenizer: Tokenizer, replies: Sequence[object], *, together: int = 1) -> None:
        self.tokenizer, self.replies, self.together = tokenizer, list(replies), together
        self.asked: list[Request] = []
        self.cancelled: list[int | None] = []

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def drain(self) -> None:
        pass

    @property
    def served(self) -> Served:
        vocab_size = self.tokenizer.vocab_size
        return Served(self.tokenizer, 8192, 8192, vocab_size, "scripted", 1_700_000_000)

    @property
    def load(self) -> Load:
        return Load()

    def submit(self, requests: Sequence[Request]) -> ScriptedAnswers:
        self.asked += requests
        replies = [self.replies.pop(0) if len(self.replies) > 1 else self.replies[0] for _ in requests]
        return ScriptedAnswers(self, requests, replies)

    async def embed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[1.0, 0.0] for _ in prompts]

    def ids(self, reply: object) -> list[int]:
        parts = [reply] if isinstance(reply, str) else reply
        ids = [i for part in parts for i in (self.tokenizer.encode(part) if isinstance(part, str) else [part])]
        return ids if ids and ids[-1] in self.tokenizer.stop_ids else [*ids, self.tokenizer.eot]


class ScriptedAnswers:
    def __init__(self, backend: Scripted, requests: Sequence[Request], replies: Sequence[object]) -> None:
        self.backend, self.requests, self.replies = backend, requests, replies
        self.gone: set[int] = set()

    def cancel(self, which: int | None = None) -> None:
        self.backend.cancelled.append(which)
        self.gone |= set(range(len(self.requests))) if which is None else {which}

    async def __aiter__(self):
        for which, reply in enumerate(self.replies):
            if isinstance(reply, BaseException):
                raise reply
            ids = self.backend.ids(reply)[: self.requests[which].sampling.max_tokens]
            said = [Said(which, token, -0.5, ((token, -0.5), (0, -2.0))) for token in ids]
            for start in range(0, len(said), self.backend.together):
                await asyncio.sleep(0)
                if which not in self.gone:
                    yield said[start : start + self.backend.together]
            if which not in self.gone:
                finish = "stop" if ids[-1] in self.backend.tokenizer.stop_ids else "length"
                yield [Ended(which, Completion(tuple(ids), (-0.5,) * len(ids), finish, cached=16))]


def quick(**changes: object) -> ServeSettings:
    """SETTINGS with other limits."""
    return replace(SETTINGS, **changes)


def chunks_of(stream):
    chunks = list(stream)
    for chunk in chunks:
        ChatChunk.model_validate(chunk.to_dict())
    return chunks


def text_of(chunks, index=0):
    return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices if c.index == index)
