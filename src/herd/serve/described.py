"""How endpoints stand in the API's description (`/openapi.json`), which tests fuzz the server by."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from herd.serve.wire.common import ErrorBody

_ERRORS = {
    400: "the request is malformed, or asks for what cannot be",
    401: "the API key is missing or wrong",
    403: "the Host or Origin header names another site",
    404: "the model is not served here",
    408: "the body did not come in time",
    413: "the body is larger than the limit",
    415: "the body is not application/json",
    429: "the queue is full; Retry-After says when to try again",
    500: "the engine failed; other requests go on",
    503: "the model is being loaded, or the server stops",
}
_FOR_READING = (401, 403, 404, 500, 503)  # of the endpoints that take no body
_REF = "#/components/schemas/"
_EVENTS: dict[str, type[BaseModel]] = {}


def described(answer: type[BaseModel], tag: str, *, stream: type[BaseModel] | None = None) -> dict[str, Any]:
    """Arguments of a POST route: what it answers, in whole and as a stream, and how it refuses."""
    found: dict[int, dict[str, Any]] = {200: {"model": answer}}
    if stream is not None:
        _EVENTS[stream.__name__] = stream
        about = f"the answer; with `stream`, events that each hold a {stream.__name__}"
        schema = {"type": "string", "contentSchema": {"$ref": _REF + stream.__name__}}
        found[200] = {"model": answer, "description": about, "content": {"text/event-stream": {"schema": schema}}}
    return _route(found, _ERRORS, tag)


def read_only(answer: type[BaseModel], tag: str) -> dict[str, Any]:
    """Arguments of a GET route."""
    return _route({200: {"model": answer}}, {status: _ERRORS[status] for status in _FOR_READING}, tag)


def _route(found: dict[int, dict[str, Any]], errors: dict[int, str], tag: str) -> dict[str, Any]:
    refusals = {status: {"model": ErrorBody, "description": text} for status, text in errors.items()}
    return {"response_model": None, "responses": found | refusals, "tags": [tag]}


def describe(app: FastAPI, *, with_key: bool) -> None:
    """Make the app's description say what it does: no 422, the events of streams, the key."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _correct(found, with_key)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _correct(found: dict[str, Any], with_key: bool) -> None:
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # FastAPI's own; here malformed requests are 400
    schemas = found["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, model in _EVENTS.items():
        one = model.model_json_schema(ref_template=_REF + "{model}")
        for inner, schema in one.pop("$defs", {}).items():
            schemas.setdefault(inner, schema)
        schemas.setdefault(name, one)
    if with_key:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
