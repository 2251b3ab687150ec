"""Bodies read strictly: JSON by its content type, no NaN, no half characters, nothing nested without end.

Python's own json takes NaN and half surrogate pairs, which no answer that quotes them could hold, and as much nesting
as the stack; pydantic's parser takes none of that, 200 levels at most.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.responses import Response

from herd.serve.replies import ApiError, refusal

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _StrictRequest(Request):
    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise refusal(f"the body is not JSON that can be read: {str(error)[:200]}", code="invalid_json") from None


class StrictRoute(APIRoute):
    """A route whose bodies are read so."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if request.method == "POST":
                kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != "application/json" and not kind.endswith("+json"):
                    raise ApiError(
                        415, "send the body as Content-Type: application/json", code="unsupported_media_type"
                    )
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict
