"""A server of the page that answers by script, over real HTTP: slow streams, errors, calls of tools, broken lines.

The page's files and their headers are those of `herd serve` (`mount_page`); only what a model would say is made up.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from herd.serve.app import PAGE
from herd.serve.page_files import mount_page

PATIENCE = 30.0  # seconds until a test that releases nothing is given up; no test asserts a time


@dataclass
class Gate:
    """The stream waits here until a test opens it."""

    opened: threading.Event = field(default_factory=threading.Event)

    def open(self) -> None:
        self.opened.set()


@dataclass
class Pause:
    seconds: float


@dataclass
class Call:
    name: str
    arguments: dict[str, Any]


@dataclass
class Refusal:
    status: int
    message: str
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class StreamError:
    message: str


class Drop:
    """The line breaks: the stream ends without having said that it is whole."""


class Endless:
    """Numbers, one every few milliseconds, until the client is gone."""


Step = str | Gate | Pause | Call | StreamError | Drop | Endless
Answer = list[Step] | Refusal


class FakeServer:
    """`answers`: what the next requests get, in order; after that each gets an echo. `requests`: their bodies."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.requests: list[dict[str, Any]] = []
        self.left = threading.Event()  # a client went away in mid-stream
        self.key = ""
        self.models = ["tiny"]
        self.room = 8192
        self.loading = 0  # so often the model is said to be loading still
        self._server = uvicorn.Server(uvicorn.Config(self._app(), port=0, log_level="error", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def reset(self) -> None:
        self.answers.clear()
        self.requests.clear()
        self.left.clear()
        self.key, self.models, self.loading = "", ["tiny"], 0

    def close(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join()

    def _app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/v1/models", self._models)
        app.add_api_route("/v1/chat/completions", self._chat, methods=["POST"])
        mount_page(app, PAGE)
        return app

    def _refuses(self, request: Request) -> Response | None:
        if not self.key or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return _error(Refusal(401, "the API key is wrong", "invalid_api_key"))

    async def _models(self, request: Request) -> Response:
        if self.loading:
            self.loading -= 1
            return _error(Refusal(503, "the model is being loaded", "not_ready"))
        data = [{"id": name, "object": "model", "max_model_len": self.room} for name in self.models]
        return self._refuses(request) or JSONResponse({"object": "list", "data": data})

    async def _chat(self, request: Request) -> Response:
        if refusal := self._refuses(request):
            return refusal
        body = await request.json()
        self.requests.append(body)
        answer = self.answers.popleft() if self.answers else [f"You said: {body['messages'][-1]['content']}"]
        if isinstance(answer, Refusal):
            return _error(answer)
        return StreamingResponse(self._stream(answer), media_type="text/event-stream")

    async def _stream(self, steps: list[Step]) -> AsyncIterator[str]:
        n_calls = n_tokens = 0
        try:
            yield _chunk({"role": "assistant", "content": ""})
            for step in steps:
                n_tokens += 1
                match step:
                    case str():
                        yield _chunk({"content": step})
                    case Gate():
                        while not step.opened.is_set():
                            await asyncio.sleep(0.01)
                    case Pause():
                        await asyncio.sleep(step.seconds)
                    case Call():
                        for delta in _call(n_calls, step):
                            yield _chunk({"tool_calls": [delta]})
                        n_calls += 1
                    case StreamError():
                        yield f"data: {json.dumps({'error': {'message': step.message, 'type': 'server_error'}})}\n\n"
                        return
                    case Drop():
                        return
                    case Endless():
                        for number in range(10**6):
                            yield _chunk({"content": f"{number} "})
                            await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.left.set()
            raise
        yield _chunk({}, "tool_calls" if n_calls else "stop")
        usage = {"prompt_tokens": 120, "completion_tokens": n_tokens, "prompt_tokens_details": {"cached_tokens": 96}}
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"


def _chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}]})}\n\n"


def _call(index: int, call: Call) -> list[dict[str, Any]]:
    """Name first, then the arguments in two parts."""
    text = json.dumps(call.arguments, ensure_ascii=False)
    half = len(text) // 2
    begun = {"index": index, "id": f"call_{call.name}_{index}", "type": "function"}
    return [
        begun | {"function": {"name": call.name, "arguments": ""}},
        *({"index": index, "function": {"arguments": part}} for part in (text[:half], text[half:])),
    ]


def _error(refusal: Refusal) -> Response:
    error = {"message": refusal.message, "type": "invalid_request_error", "code": refusal.code or None}
    return JSONResponse({"error": error}, refusal.status, refusal.headers)
