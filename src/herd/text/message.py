"""The types of a conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from herd.errors import InputError

ROLES = ("system", "user", "assistant", "ipython")
ALIASES = {"tool": "ipython"}  # the API's name -> Llama 3.1's name on the wire


@dataclass(frozen=True)
class ToolCall:
    """A call that the assistant wants made: the function's name and its arguments as JSON values."""

    name: str
    parameters: Mapping[str, Any]

    def json(self) -> str:
        """The call on one line, as Llama 3.1 writes it (prompt format page, zero-shot JSON)."""
        return json.dumps(
            {"type": "function", "name": self.name, "parameters": dict(self.parameters)}, ensure_ascii=False
        )


@dataclass(frozen=True)
class Message:
    """One message. `role` is system, user, assistant or ipython (a tool's result; "tool" is taken as an alias).

    An assistant message may call one tool; its content, if any, is the prose before the call. `problem` says why a
    reply that looked like a call was kept as text (see `parse_reply`); it takes no part in equality.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    problem: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "role", ALIASES.get(self.role, self.role))
        object.__setattr__(self, "tool_calls", tuple(self.tool_calls))
        if self.role not in ROLES:
            raise InputError(f"unknown role {self.role!r}", mend=f"use one of {', '.join(ROLES)}")
        if self.tool_calls and self.role != "assistant":
            raise InputError(f"a {self.role} message cannot call a tool", mend="only the assistant calls tools")
        if len(self.tool_calls) > 1:
            raise InputError(
                f"{len(self.tool_calls)} tool calls in one message: Llama 3.1 writes one per message",
                mend="split them into one assistant message and one tool result each",
            )
