"""The tools of a request: how the model is told of them, and which calls it may or must make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from herd.generate.protocol import MOST_BIAS, Grammar
from herd.serve.backend import Served
from herd.serve.replies import refusal
from herd.serve.settings import ServeSettings
from herd.serve.structure import compiled
from herd.serve.wire.chat import ChosenTool, FunctionDefinition
from herd.text import Message, with_tools


@dataclass(frozen=True)
class Toolbox:
    """`definitions` in OpenAI's nested form. `named`: the one function that must be called."""

    definitions: tuple[dict[str, Any], ...] = ()
    choice: str = "auto"  # or "none", "required"
    named: str = ""
    parallel: bool = True

    @classmethod
    def of(
        cls,
        functions: Sequence[FunctionDefinition],
        choice: str | ChosenTool | None,
        parallel: bool | None,
        settings: ServeSettings,
    ) -> Toolbox:
        """ApiError for tools that are no tools, or a choice that is not among them."""
        names = [function.name for function in functions]
        if len(names) > settings.max_tools:
            raise refusal(f"{len(names)} tools, and {settings.max_tools} are allowed", param="tools")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise refusal(f"two tools are named {twice[0]!r}", param="tools")
        named = choice.function.name if isinstance(choice, ChosenTool) else ""
        if named and named not in names:
            raise refusal(f"tool_choice names {named!r}, which is none of the tools", param="tool_choice")
        if choice == "required" and not names:
            raise refusal("a tool must be called, and there is none", param="tool_choice")
        how = "required" if isinstance(choice, ChosenTool) else choice or "auto"
        return cls(tuple(map(_definition, functions)), how, named, parallel is not False)

    @property
    def offered(self) -> tuple[dict[str, Any], ...]:
        """What the model is told of; with "none" nothing, so that nothing invites it to call."""
        return () if self.choice == "none" else self.definitions

    @property
    def names(self) -> tuple[str, ...]:
        """The functions whose calls are calls."""
        return tuple(each["function"]["name"] for each in self.offered)

    @property
    def single(self) -> bool:
        """Whether an answer ends with its first call."""
        return bool(self.offered) and (not self.parallel or bool(self.named))

    def warnings(self, functions: Sequence[FunctionDefinition]) -> list[str]:
        """What is said of the tools and has no effect."""
        if self.choice == "required" or not any(function.strict for function in functions):
            return []
        return ["strict holds the arguments of a call to their schema only where a call is required (tool_choice)"]

    def prepare(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation with the tools told at its head."""
        return with_tools(messages, self.offered) if self.offered else list(messages)

    def banned(self, served: Served) -> dict[int, float]:
        """A bias against the token that begins a call, where none may be made."""
        tag = served.tokenizer.python_tag
        return {tag: -MOST_BIAS} if self.choice == "none" and self.definitions and tag is not None else {}

    def grammar(self, served: Served) -> Grammar | None:
        """What holds an answer to calls where one must be made."""
        if self.choice != "required":
            return None
        which = self.named or "required"
        return compiled(
            served,
            lambda grammars: grammars.tools(self.definitions, which, self.parallel and not self.named),
            "tool_choice",
        )


def _definition(function: FunctionDefinition) -> dict[str, Any]:
    inner: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        inner["description"] = function.description
    inner["parameters"] = function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": inner}
