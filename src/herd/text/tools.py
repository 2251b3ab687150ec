"""Tool definitions as the text of a system message: the only place that Llama 3.1's format has for them.

Meta's page shows JSON definitions inside a message, under `Environment: ipython`, and leaves the words around them
free; these words are ours, and the chat template in `template.py` writes the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from herd.errors import FormatError
from herd.text.message import Message

TOOLS_PREAMBLE = (
    "Environment: ipython\n\n"
    "You can call the functions below. To call one, write a JSON object with its name and its arguments: "
    '{"type": "function", "name": NAME, "parameters": {ARGUMENT: VALUE}}'
)


def describe_tools(tools: Sequence[Any]) -> str:
    """The text that tells a model its tools: OpenAI's definitions, nested under "function" or flat, one a line."""
    return "\n".join([TOOLS_PREAMBLE, *(_definition(tool, f"tools[{i}]") for i, tool in enumerate(tools))])


def with_tools(messages: Sequence[Message], tools: Sequence[Any]) -> list[Message]:
    """The conversation with its tools described at the head of the system message, made if there is none."""
    text = describe_tools(tools)
    if messages and messages[0].role == "system":
        return [Message("system", f"{text}\n\n{messages[0].content.strip()}"), *messages[1:]]
    return [Message("system", text), *messages]


def _definition(tool: Any, where: str) -> str:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise FormatError("a tool is an object with a 'name'", where=where)
    return json.dumps(dict(function), ensure_ascii=False)
