"""`/v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from herd.serve.wire.common import (
    Alternatives,
    Answer,
    Count,
    FinishReason,
    JsonObject,
    SamplingFields,
    StreamOptions,
    Text,
    Usage,
    Wire,
    several,
)

Name = Annotated[str, Field(min_length=1, max_length=128)]


class Part(Wire):
    """One part of a message's content. Only text is understood; an image is refused by name."""

    type: str
    text: str | None = None


class CalledFunction(Wire):
    name: Name
    arguments: str | JsonObject = Field(description="JSON text")


class Called(Wire):
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledFunction


class ChatMessage(Wire):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[Part], several()] | None = None
    tool_calls: Annotated[list[Called], several()] | None = None
    tool_call_id: Annotated[str | None, Field(description="of a tool's result: the call that it answers")] = None
    name: str | None = None
    refusal: str | None = None


class FunctionDefinition(Wire):
    name: Name
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(Wire):
    type: Literal["function"]
    function: FunctionDefinition


class ChosenFunction(Wire):
    name: Name


class ChosenTool(Wire):
    type: Literal["function"]
    function: ChosenFunction


class JsonSchemaFormat(Wire):
    name: str | None = None
    description: str | None = None
    schema_: JsonObject | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Wire):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class ChatRequest(SamplingFields):
    model: str
    messages: Annotated[list[ChatMessage], several(least=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None
    tools: Annotated[list[Tool], several()] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None


class TopLogprob(Answer):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Answer):
    content: list[TokenLogprob] | None
    refusal: None = None


class AnswerFunction(Answer):
    name: str
    arguments: str


class AnswerCall(Answer):
    id: str
    type: Literal["function"]
    function: AnswerFunction


class AnswerMessage(Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[AnswerCall] | None = None


class ChatChoice(Answer):
    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Answer):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str
    warnings: list[str] | None = None


class FunctionDelta(Answer):
    name: str | None = None
    arguments: str | None = None


class CallDelta(Answer):
    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(Answer):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[CallDelta] | None = None


class ChunkChoice(Answer):
    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None


class ChatChunk(Answer):
    """One event of a stream; the last event is `[DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    system_fingerprint: str
    warnings: list[str] | None = None
