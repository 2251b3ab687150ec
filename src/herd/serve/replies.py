"""Responses of the server: JSON, errors in OpenAI's form, and streams of server-sent events.

Every error is `{"error": {"message", "type", "param", "code"}}`. What a client is told is the sentence of a `HerdError`
and how to mend it, never a path or a traceback: those stand in the server's log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from herd.errors import BusyError, DeviceError, HerdError, InputError, SettingError
from herd.serve.backend import ComputeError, NotReadyError

log = logging.getLogger("herd.serve")
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}
RETRY_SECONDS = "1"
_SLICE = 4096  # numbers or texts of one piece


class ApiError(HTTPException):
    """An answer other than 200. FastAPI hands on nothing but HTTPExceptions while it reads a body.

    closes: the connection ends with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(status, message)
        self.closes = closes
        self.status, self.message, self.param, self.code = status, message, param, code
        self.kind = kind or _TYPES.get(status, "invalid_request_error")

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        headers = {"Retry-After": RETRY_SECONDS} if self.status in (429, 503) else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.closes:
            headers["Connection"] = "close"
        return json_response(self.body(), self.status, headers)


def refusal(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request asks for what is not there, or cannot be."""
    return ApiError(400, message, param=param, code=code)


def as_api_error(error: BaseException) -> ApiError:
    """What a client is told of any exception."""
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, HerdError):
        log.error("an error that is a bug of herd's", exc_info=error)
        return ApiError(500, "the server failed; its log has the cause", code="internal_error")
    said = error.message if not error.mend else f"{error.message}; {error.mend}"
    if isinstance(error, SettingError):
        return refusal(said, param=error.where or None)
    if isinstance(error, BusyError):
        return ApiError(429, said, code="queue_full")
    if isinstance(error, NotReadyError):
        return ApiError(503, said, code="not_ready")
    if isinstance(error, ComputeError):
        return ApiError(500, said, code="engine_failed")
    if isinstance(error, DeviceError):
        return ApiError(503, said, code="out_of_memory")
    if isinstance(error, InputError):
        return refusal(said)
    log.error("a request failed: %s", error)
    return ApiError(500, error.message, code="internal_error")


def dumps(value: Any) -> bytes:
    """ASCII JSON: half a surrogate pair that a client sent must not break the answer that quotes it."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def in_pieces(value: Any, depth: int = 6) -> Iterator[bytes]:
    """The same, so that a thread which writes a large answer lets the others run: json's encoder keeps the interpreter
    for all of one call. Six levels reach one token's log-probabilities in every endpoint's answer."""
    if depth and isinstance(value, dict) and value:
        for number, (key, one) in enumerate(value.items()):
            yield (b"," if number else b"{") + dumps(key) + b":"
            yield from in_pieces(one, depth - 1)
        yield b"}"
    elif depth and isinstance(value, list) and value:
        yield from _list_in_pieces(value, depth)
    else:
        yield dumps(value)


def _list_in_pieces(value: list[Any], depth: int) -> Iterator[bytes]:
    if isinstance(value[0], dict | list):
        for number, one in enumerate(value):
            yield b"," if number else b"["
            yield from in_pieces(one, depth - 1)
    else:
        for start in range(0, len(value), _SLICE):
            yield (b"," if start else b"[") + dumps(value[start : start + _SLICE])[1:-1]
    yield b"]"


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return written(dumps(value), status, headers)


def written(data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that is bytes already."""
    return Response(data, status, dict(headers or {}), media_type="application/json")
