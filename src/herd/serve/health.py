"""`/v1/models`, `/health` and `/metrics`: what is served, whether it can be asked, how busy it is."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from herd.serve.backend import NotReadyError, Served
from herd.serve.described import read_only
from herd.serve.replies import ApiError, json_response
from herd.serve.service import Service, service_of
from herd.serve.wire.common import Answer

router = APIRouter()


class Model(Answer):
    """`max_model_len` is vLLM's name for what prompt and answer together may take."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    context: int
    default_max_tokens: int
    embeddings: str | None


class Models(Answer):
    object: Literal["list"]
    data: list[Model]


class Health(Answer):
    status: Literal["ok"]


@router.get("/v1/models", **read_only(Models, "models"))
async def models(request: Request) -> Response:
    """The one model that is served."""
    service = service_of(request)
    return json_response({"object": "list", "data": [_model(service, service.backend.served)]})


@router.get("/v1/models/{model:path}", **read_only(Model, "models"))
async def model(model: str, request: Request) -> Response:
    """The model of that name."""
    service = service_of(request)
    return json_response(_model(service, service.served(model)))


def _model(service: Service, served: Served) -> dict[str, object]:
    return {
        "id": service.name,
        "object": "model",
        "created": served.created,
        "owned_by": "herd",
        "max_model_len": served.room,
        "context": served.context,
        "default_max_tokens": service.settings.default_max_tokens,
        "embeddings": "mean of the last hidden states, of length 1" if served.embeds else None,
    }


@router.head("/health", include_in_schema=False)  # load balancers ask so
@router.get("/health", **read_only(Health, "health"))
@router.get("/health/ready", **read_only(Health, "health"))
async def ready(request: Request) -> Response:
    """200 when requests are taken, 503 while the model is loaded and when the server stops."""
    try:
        _ = service_of(request).backend.served
    except NotReadyError as error:
        raise ApiError(503, error.message, code="not_ready") from error
    return json_response({"status": "ok"})


@router.get("/health/live", **read_only(Health, "health"))
async def live() -> Response:
    """200 while the process runs."""
    return json_response({"status": "ok"})


@router.get("/metrics", response_class=PlainTextResponse, tags=["health"])
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(service_of(request).metrics.page(), media_type=CONTENT_TYPE_LATEST)
