"""`POST /v1/responses`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from herd.serve.choices import GoneError
from herd.serve.described import described
from herd.serve.responses import ResponseRun, read_response
from herd.serve.service import service_of, warned
from herd.serve.sse import EventStream, when_gone
from herd.serve.strict_json import StrictRoute
from herd.serve.wire.responses import ResponseBody, ResponseEvent, ResponsesRequest

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/responses", **described(ResponseBody, "responses", stream=ResponseEvent))
async def responses(body: ResponsesRequest, request: Request) -> Response:
    """The next turn of a conversation: text, and calls of the functions that are offered."""
    service = service_of(request)
    served = service.served(body.model)
    response = await service.read(request, read_response, body, served, service.settings)
    answers = service.submit([response.request])
    run = ResponseRun(response, served, service.name)
    if body.stream:
        return EventStream(run.events(answers), answers.cancel, warned(response.warnings), run.failed)
    with when_gone(request.receive, answers.cancel):
        async for batch in answers:
            run.hear(answers, batch)
    if run.choice.finish is None:
        raise GoneError
    return await service.write(run.whole, warnings=response.warnings)
