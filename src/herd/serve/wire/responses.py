"""`/v1/responses`: text and functions. Nothing is stored, so a conversation is sent whole each time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from herd.serve.wire.chat import Name, Part
from herd.serve.wire.common import Alternatives, Answer, Count, JsonObject, SamplingFields, Text, Wire, several

_MOST_METADATA = 16  # OpenAI's


def _few(given: object) -> object:
    """Before each entry is looked at, for each wrong one is an error."""
    if isinstance(given, dict) and len(given) > _MOST_METADATA:
        raise ValueError(f"give {_MOST_METADATA} entries at most")
    return given


class InputItem(Wire):
    """A message, a call that the model made, or its result (`function_call_output`), told apart by `type`."""

    type: Annotated[str | None, Field(description="message where it is not given")] = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Text | Annotated[list[Part], several()] | None = None
    name: Name | None = None
    arguments: str | None = None
    call_id: str | None = None
    output: Text | Annotated[list[Part], several()] | None = None


class FunctionTool(Wire):
    """Of the tools of OpenAI's API only functions are there; another type is refused by its name."""

    type: str
    name: Name | None = None
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class NamedTool(Wire):
    type: Literal["function"]
    name: Name


class TextFormat(Wire):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: JsonObject | None = Field(None, alias="schema")
    strict: bool | None = None


class TextConfig(Wire):
    format: TextFormat | None = None
    verbosity: str | None = None


class ResponsesRequest(SamplingFields):
    model: str
    input: Text | Annotated[list[InputItem], several(least=1)]
    instructions: Text | None = None
    tools: Annotated[list[FunctionTool], several()] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    max_output_tokens: Count | None = None
    top_logprobs: Alternatives | None = None
    include: Annotated[list[str], several()] | None = None
    stream: bool | None = None
    metadata: Annotated[dict[str, str], BeforeValidator(_few)] | None = None
    previous_response_id: str | None = None
    conversation: str | JsonObject | None = None
    background: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None


class OutputText(Answer):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class OutputMessage(Answer):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class OutputCall(Answer):
    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed"]


class InputDetails(Answer):
    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(Answer):
    reasoning_tokens: int


class ResponseUsage(Answer):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Incomplete(Answer):
    reason: Literal["max_output_tokens"]


class Failure(Answer):
    code: str
    message: str


class ResponseBody(Answer):
    """What was asked stands in it again, as OpenAI's has it."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: Failure | None
    incomplete_details: Incomplete | None
    instructions: str | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage | OutputCall]
    parallel_tool_calls: bool
    temperature: float
    top_p: float
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    text: dict[str, Any]
    max_output_tokens: int
    top_logprobs: int
    previous_response_id: None
    background: bool
    store: bool
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    warnings: list[str] | None = None


class ResponseEvent(Answer):
    """One event of a stream; which other fields it has depends on `type`, as OpenAI's reference lists them."""

    type: str
    sequence_number: int
