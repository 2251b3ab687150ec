"""Tools of `herd chat`: a calculator and a clock that herd carries out, and descriptions that the user answers for."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from herd.errors import FormatError, HerdError
from herd.files import read_json
from herd.text import Message, ToolCall
from herd.text.tools import describe_tools, prepare, tool_names

_LONGEST = 1000  # characters of an expression
_LARGEST = 4096  # bits of a whole number


@dataclass(frozen=True)
class Tools:
    """What the model is told it may call: OpenAI's definitions. Those in `BUILTIN` herd carries out."""

    definitions: tuple[Mapping[str, Any], ...] = ()

    @property
    def names(self) -> list[str]:
        return tool_names(self.definitions)

    def prepare(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation with its tools told at the head."""
        return prepare(messages, self.definitions) if self.definitions else list(messages)

    def run(self, call: ToolCall) -> str | None:
        """The result of a call, errors too; None if it is the user's to answer."""
        definition, run = BUILTIN.get(call.name, (None, None))
        if run is None or definition not in self.definitions:
            return None
        try:
            return run(**call.parameters)
        except (ArithmeticError, HerdError, SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
            return f"Error: {error}"


def builtin_tools() -> Tools:
    return Tools(tuple(definition for definition, _ in BUILTIN.values()))


def read_tools(path: Path) -> Tools:
    """Definitions of a JSON file: a list of them, one alone, or an object with the key "tools"."""
    content = read_json(path)
    found = content.get("tools", [content]) if isinstance(content, Mapping) else content
    if not isinstance(found, list) or not found:
        raise FormatError("tools are a list of definitions", where=str(path), mend='see "tools" of OpenAI\'s API')
    describe_tools(found)  # a malformed one is told now, not when the model is asked
    return Tools(tuple(found))


def calculate(expression: str) -> str:
    """Arithmetic in Python's notation, ^ as a power; whole numbers are exact. No names but those below, no eval.

    Raises ValueError, SyntaxError or ArithmeticError.
    """
    if len(expression) > _LONGEST:
        raise ValueError(f"the expression is longer than {_LONGEST} characters")
    value = _value(ast.parse(expression.strip().replace("^", "**"), mode="eval").body)
    return str(value) if isinstance(value, int) else f"{value:.14g}"


def current_time(timezone: str = "") -> str:
    """The date and time now, here or in an IANA time zone."""
    now = datetime.now(ZoneInfo(timezone)) if timezone else datetime.now().astimezone()
    return now.strftime("%A, %Y-%m-%d %H:%M ") + f"({timezone or now.tzname()})"


_Number = int | float
_OPERATORS: dict[type, Callable[[Any, Any], _Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a // b if isinstance(a, int) and isinstance(b, int) and b and a % b == 0 else a / b,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
}
_OF_ONE = ("sqrt", "exp", "sin", "cos", "tan", "asin", "acos", "atan", "log2", "log10", "floor", "ceil")
_FUNCTIONS: dict[str, Callable[..., _Number]] = {name: getattr(math, name) for name in _OF_ONE} | {
    "ln": math.log,
    "log": math.log,
    "abs": abs,
    "round": round,
    "min": min,
    "max": max,
}
_CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}


def _value(node: ast.expr) -> _Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _bounded(_OPERATORS[type(op)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(_value, args))
    raise ValueError(f"{ast.unparse(node)!r} is not understood; there are {', '.join((*_FUNCTIONS, *_CONSTANTS))}")


def _power(base: _Number, exponent: _Number) -> _Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        if base.bit_length() * exponent > _LARGEST:
            raise OverflowError("the result is too large")
        return int(base**exponent)
    value = float(base) ** exponent
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")
    return value


def _bounded(value: _Number) -> _Number:
    if isinstance(value, int) and value.bit_length() > _LARGEST:
        raise OverflowError("the result is too large")
    return value


def _definition(name: str, description: str, argument: str, about: str, *, needed: bool) -> dict[str, Any]:
    properties = {argument: {"type": "string", "description": about}}
    required = {"required": [argument]} if needed else {}
    return {
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": properties, **required},
    }


BUILTIN: dict[str, tuple[dict[str, Any], Callable[..., str]]] = {
    "calculator": (
        _definition(
            "calculator",
            "Work out an arithmetic expression. % is the remainder of a division, ^ a power.",
            "expression",
            "for example: sqrt(2) * (3 + 4)^2",
            needed=True,
        ),
        calculate,
    ),
    "current_time": (
        _definition(
            "current_time",
            "The date, the day of the week and the time now.",
            "timezone",
            "an IANA name, for example Europe/Zurich; without it the user's own",
            needed=False,
        ),
        current_time,
    ),
}
