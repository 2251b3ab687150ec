"""What the endpoints share: the backend, the settings, and who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from herd.generate.protocol import Request
from herd.serve.backend import Answers, Backend, Served
from herd.serve.choices import Choice, GoneError, collect
from herd.serve.metrics import Metrics
from herd.serve.replies import ApiError, in_pieces, written
from herd.serve.settings import ServeSettings
from herd.serve.sse import when_gone

T = TypeVar("T")
_READERS = 4  # threads that read requests (templates, tokens, grammars) and write answers beside the event loop
_LARGE = 2**16  # bytes of a body; one thread reads those that are larger, so that they hold up each other alone


@dataclass(eq=False)
class Service:
    """One app's. `read` and `write` do what takes longer than the event loop may be held up."""

    backend: Backend
    settings: ServeSettings
    metrics: Metrics
    readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_READERS, "read"))
    large: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "large"))

    @property
    def name(self) -> str:
        return self.settings.name

    def served(self, model: str) -> Served:
        """Raises NotReadyError, and ApiError 404 for another model than is served here."""
        served = self.backend.served
        if model != self.name:
            raise ApiError(
                404,
                f"the model {model[:100]!r} is not served here, {self.name!r} is",
                param="model",
                code="model_not_found",
            )
        return served

    async def read(self, request: HttpRequest, work: Callable[..., T], *arguments: object) -> T:
        """Do `work` with what a request asks."""
        pool = self.large if len(await request.body()) > _LARGE else self.readers
        return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)

    async def write(
        self, build: Callable[..., Mapping[str, Any]], *arguments: object, warnings: Sequence[str] = ()
    ) -> Response:
        """The whole answer that `build` gives, with what of the request had no effect."""

        def work() -> bytes:
            answer = dict(build(*arguments)) | ({"warnings": list(warnings)} if warnings else {})
            return b"".join(in_pieces(answer))

        data = await asyncio.get_running_loop().run_in_executor(self.readers, work)
        return written(data, headers=warned(warnings))

    def submit(self, requests: Sequence[Request]) -> Answers:
        """The answers, timed and counted. Raises NotReadyError and BusyError."""
        return self.metrics.observed(self.backend.submit(requests), requests)

    async def embed(self, prompts: Sequence[Sequence[int]], request: HttpRequest) -> list[list[float]]:
        """A vector for each prompt. GoneError when the client leaves before that."""
        work = asyncio.ensure_future(self.backend.embed(prompts))
        with when_gone(request.receive, work.cancel):
            try:
                return await work
            except asyncio.CancelledError:
                if work.cancelled():
                    raise GoneError from None
                raise


def service_of(request: HttpRequest) -> Service:
    """The service of the app that a request came to."""
    service: Service = request.app.state.service
    return service


def warned(warnings: Sequence[str]) -> dict[str, str]:
    """The header that says what had no effect; the answer itself says it too."""
    said = "; ".join(warnings)[:1000].encode("ascii", errors="replace").decode()
    return {"X-Herd-Warnings": "".join(c if c.isprintable() else "?" for c in said)} if warnings else {}


async def answered(request: HttpRequest, answers: Answers, choices: Sequence[Choice]) -> None:
    """Hear all answers; nothing more is computed when the client leaves. GoneError then."""
    with when_gone(request.receive, answers.cancel):
        await collect(answers, choices)
