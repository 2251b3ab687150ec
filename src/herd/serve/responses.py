"""`/v1/responses`: the chat endpoint's work in the form of OpenAI's newer API, whole and as events."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from herd.generate.protocol import Request
from herd.serve.backend import Answers, Ended, Said, Served
from herd.serve.choices import Choice, hear
from herd.serve.logprobs import chat_logprobs
from herd.serve.messages import messages_of
from herd.serve.reading import Reader
from herd.serve.replies import as_api_error, dumps, refusal
from herd.serve.response_input import chat_messages, choice_of, format_of, functions_of
from herd.serve.response_output import Event, Output
from herd.serve.sampling import check_told, room_for, sampling_of, warnings_of
from herd.serve.settings import ServeSettings
from herd.serve.structure import grammar_of
from herd.serve.toolbox import Toolbox
from herd.serve.wire.responses import ResponsesRequest
from herd.text import encode_prompt

_LOGPROBS = "message.output_text.logprobs"
_STATELESS = "this server stores nothing; send the conversation as input"


@dataclass(frozen=True)
class Response:
    """One request, checked. `asked`: the fields of the answer that say again what was asked."""

    request: Request
    toolbox: Toolbox
    n_top: int | None
    asked: dict[str, Any]
    warnings: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def choice(self, served: Served) -> Choice:
        how = self.request.sampling
        reader = Reader(served.tokenizer, stops=how.stop, tools=self.toolbox.names)
        return Choice(reader, frozenset(how.stop_ids), self.toolbox.single)


def read_response(body: ResponsesRequest, served: Served, settings: ServeSettings) -> Response:
    """ApiError or HerdError for what cannot be done. It encodes text and compiles grammars: not for the event loop."""
    warnings = warnings_of(body)
    _refuse(body)
    if not served.tokenizer.can_chat:
        raise refusal("this model has no chat format; use /v1/completions", code="no_chat_format")
    functions = functions_of(body.tools or ())
    toolbox = Toolbox.of(functions, choice_of(body.tool_choice), body.parallel_tool_calls, settings)
    warnings += toolbox.warnings(functions)
    messages = messages_of(chat_messages(body.input, body.instructions, warnings), settings)
    prompt = encode_prompt(served.tokenizer, toolbox.prepare(messages))
    room = room_for(len(prompt), body.max_output_tokens, served, settings, "input", warnings)
    told = bool(body.top_logprobs) or _LOGPROBS in (body.include or ())
    if body.text and body.text.verbosity:
        warnings.append("text.verbosity has no effect")
    warnings += [f"include: {one[:64]} is not here" for one in body.include or () if one != _LOGPROBS]
    sampling = sampling_of(
        body, served, settings, max_tokens=room, top_logprobs=body.top_logprobs or 0, bias=toolbox.banned(served)
    )
    held = grammar_of(body, format_of(body.text), served)
    request = Request(tuple(prompt), sampling, toolbox.grammar(served) or held)
    n_top = (body.top_logprobs or 0) if told else None
    check_told(room, n_top, settings)
    return Response(request, toolbox, n_top, _asked(body, request), tuple(warnings))


def _refuse(body: ResponsesRequest) -> None:
    for name in ("previous_response_id", "conversation"):
        if getattr(body, name) is not None:
            raise refusal(_STATELESS, param=name, code="unsupported_parameter")
    if body.background:
        raise refusal(_STATELESS, param="background", code="unsupported_parameter")
    if body.truncation == "auto":
        raise refusal("nothing is ever cut from a prompt", param="truncation", code="unsupported_parameter")


def _asked(body: ResponsesRequest, request: Request) -> dict[str, Any]:
    dumped = body.model_dump(by_alias=True, exclude_none=True, include={"tools", "tool_choice", "text"})
    return {
        "instructions": body.instructions,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "tool_choice": dumped.get("tool_choice", "auto"),
        "tools": dumped.get("tools", []),
        "text": {"format": {"type": "text"}} | dumped.get("text", {}),
        "max_output_tokens": request.sampling.max_tokens,
        "top_logprobs": request.sampling.top_logprobs,
        "previous_response_id": None,
        "background": False,
        "store": False,
        "truncation": "disabled",
    }


def response_body(
    response: Response, name: str, status: str, output: Output, choice: Choice, error: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The response as it is now: one of `status` "in_progress" has no usage yet."""
    body = {
        "id": response.id,
        "object": "response",
        "created_at": response.created,
        "status": status,
        "error": error,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": name,
        "output": [dict(item) for item in output.items],
        "usage": None if status == "in_progress" else _usage(response, choice),
        **response.asked,
    }
    return body | ({"warnings": list(response.warnings)} if response.warnings else {})


def _usage(response: Response, choice: Choice) -> dict[str, Any]:
    n_prompt = len(response.request.prompt)
    return {
        "input_tokens": n_prompt,
        "input_tokens_details": {"cached_tokens": choice.cached, "cache_write_tokens": 0},
        "output_tokens": choice.n_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": n_prompt + choice.n_tokens,
    }


class ResponseRun:
    """One response while it is computed. `events` for a stream; `whole` for all at once."""

    def __init__(self, response: Response, served: Served, name: str) -> None:
        self._response, self._served, self._name = response, served, name
        self.choice = response.choice(served)
        self._output = Output()
        self._number = 0

    def whole(self) -> dict[str, Any]:
        """The body, once `choice` has ended and been heard through `hear`."""
        return response_body(self._response, self._name, self._status, self._output, self.choice)

    def hear(self, answers: Answers, batch: Sequence[Said | Ended]) -> list[Event]:
        """What a batch adds to the output."""
        n_said = len(self.choice.said)
        new = [one for each in batch for one in hear(answers, [self.choice], each)]
        told: list[dict[str, Any]] = []
        if self._response.n_top is not None:
            told = chat_logprobs(self._served.tokenizer, self.choice.said[n_said:], self._response.n_top)
        found = self._output.add(new, told)
        if self.choice.finish is not None:
            found += self._output.finish(self._status)
        return found

    @property
    def _status(self) -> str:
        return "incomplete" if self.choice.finish == "length" else "completed"

    async def events(self, answers: Answers) -> AsyncIterator[bytes]:
        """Bytes to send, each time at once."""
        yield self._told([self._state("response.created"), self._state("response.in_progress")])
        async for batch in answers:
            if self.choice.finish is None and (found := self.hear(answers, batch)):
                yield self._told(found)
        if self.choice.finish is not None:
            yield self._told([{"type": f"response.{self._status}", "response": self.whole()}])

    def failed(self, error: BaseException) -> bytes:
        """The last event of a stream that an error ends."""
        said = {"code": "server_error", "message": as_api_error(error).message}
        body = response_body(self._response, self._name, "failed", self._output, self.choice, said)
        return self._told([{"type": "response.failed", "response": body}])

    def _state(self, kind: str) -> Event:
        return {
            "type": kind,
            "response": response_body(self._response, self._name, "in_progress", self._output, self.choice),
        }

    def _told(self, events: Sequence[Event]) -> bytes:
        found = b""
        for one in events:
            found += b"event: %b\ndata: %b\n\n" % (one["type"].encode(), dumps(one | {"sequence_number": self._number}))
            self._number += 1
        return found
