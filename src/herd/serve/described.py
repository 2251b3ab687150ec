"""How endpoints stand in the API's description (`/openapi.json`)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from herd.serve.wire.common import ErrorBody

_ERRORS = {
    400: "the request is malformed, or asks for what cannot be",
    401: "the API key is missing or wrong",
    403: "the Host or Origin header names another site",
    404: "the model is not served here",
    413: "the body is larger than the limit",
    415: "the body is not application/json",
    429: "the queue is full; Retry-After says when to try again",
    500: "the engine failed; the others go on",
    503: "the model is being loaded, or the server stops",
}


def described(answer: type[BaseModel], tag: str, *, stream: type[BaseModel] | None = None) -> dict[str, Any]:
    """Arguments of a route: what it answers, in whole and as a stream, and how it refuses."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": text} for status, text in _ERRORS.items()
    }
    if stream is not None:
        about = f"the answer; with `stream`, events that each hold a {stream.__name__}"
        schema = {"type": "string", "contentSchema": {"$ref": f"#/components/schemas/{stream.__name__}"}}
        responses[200] = {"model": answer, "description": about, "content": {"text/event-stream": {"schema": schema}}}
    return {"response_model": None, "responses": {200: {"model": answer}, **responses}, "tags": [tag]}
