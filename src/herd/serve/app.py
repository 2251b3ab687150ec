"""The server as an ASGI app over a backend. Nothing is loaded or listened to here.

app = create_app(backend, ServeSettings(name="nano"))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from herd import __version__
from herd.errors import HerdError
from herd.serve import chat_routes, health, response_routes, text_routes
from herd.serve.backend import Backend
from herd.serve.choices import GoneError
from herd.serve.described import describe
from herd.serve.guard import Guard
from herd.serve.metrics import Metrics
from herd.serve.page_files import mount_page
from herd.serve.replies import ApiError, as_api_error
from herd.serve.service import Service
from herd.serve.settings import ServeSettings

PAGE = Path(__file__).parent / "page"
_ABOUT = "A model of herd behind OpenAI's API. What differs and what is not supported: docs/serving.md."


def create_app(backend: Backend, settings: ServeSettings, keys: Sequence[str] = ()) -> FastAPI:
    """The app; its lifespan starts and stops the backend. `keys`: one of them is asked of every request, if any."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await backend.start()
        yield
        await backend.stop()

    app = FastAPI(
        title="herd",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # the place to go to would be made of the Host header
        separate_input_output_schemas=False,
    )
    metrics = Metrics(backend)
    app.state.service = Service(backend, settings, metrics)
    for routes in (chat_routes, response_routes, text_routes, health):
        app.include_router(routes.router)
    mount_page(app, PAGE)
    _handle_errors(app)
    describe(app, with_key=bool(keys))
    app.add_middleware(Guard, settings=settings, metrics=metrics, keys=keys)
    return app


def _handle_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    async def refuse(request: Request, error: Exception) -> Response:
        return as_api_error(error).response()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _as_refusal(error).response()

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = ApiError(error.status_code, str(error.detail)).response()
        response.headers.update(error.headers or {})  # which methods are allowed, say
        return response

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(GoneError, gone)
    for kind in (ApiError, HerdError):
        app.add_exception_handler(kind, refuse)


def _as_refusal(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong with a body, and where."""
    found: Sequence[dict[str, Any]] = error.errors()
    # Of a union each kind tells an error, and that the value is not of the other kinds says the least.
    first = next((one for one in found if not str(one.get("type")).endswith("_type")), found[0])
    param = _place(first.get("loc", ()))[:200] or None
    said = str(first.get("msg", "the request is malformed"))[:500]
    return ApiError(400, f"{param}: {said}" if param else said, param=param, code="invalid_request")


def _place(parts: Sequence[str | int]) -> str:
    """`messages[0].content` out of pydantic's path, which names the kinds of a union too."""
    found = ""
    for part in parts:
        if isinstance(part, int):
            found += f"[{part}]"
        elif part != "body" and part.isidentifier() and part not in ("str", "int", "float", "bool"):
            found += f".{part}" if found else part
    return found
