"""Input items of `/v1/responses` as the messages of the chat endpoint, and its tools and formats likewise."""

from __future__ import annotations

from collections.abc import Sequence

from herd.serve.replies import refusal
from herd.serve.wire.chat import (
    Called,
    CalledFunction,
    ChatMessage,
    ChosenFunction,
    ChosenTool,
    FunctionDefinition,
    JsonSchemaFormat,
    ResponseFormat,
)
from herd.serve.wire.responses import FunctionTool, InputItem, NamedTool, TextConfig


def chat_messages(given: str | Sequence[InputItem], instructions: str | None, warnings: list[str]) -> list[ChatMessage]:
    """The conversation, the instructions at its head. ApiError for items of other kinds."""
    found = [ChatMessage(role="system", content=instructions)] if instructions else []
    if isinstance(given, str):
        return [*found, ChatMessage(role="user", content=given)]
    for number, item in enumerate(given):
        _add(found, item, f"input[{number}]", warnings)
    if not found:
        raise refusal("the input holds no message", param="input")
    return found


def _add(found: list[ChatMessage], item: InputItem, where: str, warnings: list[str]) -> None:
    kind = item.type or "message"
    if kind == "message":
        if item.role is None:
            raise refusal("a message has no role", param=f"{where}.role")
        found.append(ChatMessage(role=item.role, content=item.content))
    elif kind == "function_call":
        _add_call(found, item, where)
    elif kind == "function_call_output":
        found.append(ChatMessage(role="tool", content=item.output, tool_call_id=item.call_id))
    elif kind == "reasoning":
        warnings.append(f"{where}: the model reads no reasoning; it is left out")
    else:
        raise refusal(f"an item of type {kind[:40]!r} is not supported", param=where, code="unsupported_content")


def _add_call(found: list[ChatMessage], item: InputItem, where: str) -> None:
    """Calls that follow one another, or the text before them, are one message of the assistant."""
    if item.name is None or item.arguments is None:
        raise refusal("a function_call has name and arguments", param=where)
    call = Called(id=item.call_id, function=CalledFunction(name=item.name, arguments=item.arguments))
    if found and found[-1].role == "assistant":
        found[-1].tool_calls = [*(found[-1].tool_calls or ()), call]
    else:
        found.append(ChatMessage(role="assistant", tool_calls=[call]))


def functions_of(tools: Sequence[FunctionTool]) -> list[FunctionDefinition]:
    """ApiError for the tools that OpenAI runs itself."""
    found = []
    for number, tool in enumerate(tools):
        if tool.type != "function":
            raise refusal(
                f"a tool of type {tool.type[:40]!r} is not here; only functions of your own are",
                param=f"tools[{number}]",
                code="unsupported_tool",
            )
        if tool.name is None:
            raise refusal("a function has no name", param=f"tools[{number}].name")
        found.append(
            FunctionDefinition(
                name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
            )
        )
    return found


def choice_of(choice: str | NamedTool | None) -> ChosenTool | str | None:
    if isinstance(choice, NamedTool):
        return ChosenTool(type="function", function=ChosenFunction(name=choice.name))
    return choice


def format_of(text: TextConfig | None) -> ResponseFormat | None:
    wanted = text.format if text else None
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        return ResponseFormat(type=wanted.type)
    return ResponseFormat(type="json_schema", json_schema=JsonSchemaFormat(name=wanted.name, schema=wanted.schema_))
