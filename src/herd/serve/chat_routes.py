"""`POST /v1/chat/completions`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from herd.serve.chat import Chat, chat_completion, read_chat
from herd.serve.chat_stream import ChatStream
from herd.serve.described import described
from herd.serve.service import answered, service_of, warned
from herd.serve.sse import EventStream
from herd.serve.strict_json import StrictRoute
from herd.serve.wire.chat import ChatChunk, ChatCompletion, ChatRequest

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/chat/completions", **described(ChatCompletion, "chat", stream=ChatChunk))
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """The next message of a conversation, or several, with calls of the tools that are offered."""
    service = service_of(request)
    served = service.served(body.model)
    chat: Chat = await service.read(request, read_chat, body, served, service.settings)
    answers = service.submit(chat.requests)
    if body.stream:
        stream = ChatStream(chat, served, service.name)
        return EventStream(stream.events(answers), answers.cancel, warned(chat.warnings))
    choices = chat.choices(served)
    await answered(request, answers, choices)
    return await service.write(chat_completion, chat, choices, served, service.name, warnings=chat.warnings)
