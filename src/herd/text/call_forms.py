"""Texts that write tool calls, read into `ToolCall`s, or the reason why they write none.

    read_tagged('{"name": "add", "parameters": {"a": 1}}') == [ToolCall("add", {"a": 1})]
    read_tagged('wolfram_alpha.call(query="2 + 2")')       == [ToolCall("wolfram_alpha", {"query": "2 + 2"})]
    read_list("[add(a=1), now()]")                         == [ToolCall("add", {"a": 1}), ToolCall("now", {})]

Every function returns a reason (a str) instead of raising: what a model writes is no one's mistake. Nothing is
executed: Python calls are read by their syntax tree, keyword arguments with literal values only.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from herd.text.message import CODE_INTERPRETER, SEARCHES, Form, ToolCall

Reading = list[ToolCall] | str
FUNCTION, CLOSE = "<function=", "</function>"
_QUERY = re.compile(r"query\s*=\s*")
_BETWEEN = re.compile(r"\s*[;,]?\s*")
_TOO_DEEP = (RecursionError, MemoryError)
_DEEPEST = 100  # arguments nested deeper are refused: what is read must be writable again, whatever the stack


def read_tagged(body: str) -> Reading:
    """What stands behind the python tag: JSON calls, a list of calls, a built-in search, or else code (Meta's order).

    A lone list or dictionary that is no call is malformed; within a program (`[f(x) for x in y]`) it is code.
    """
    text = body.strip()
    if not text:
        return "the tool call is not JSON: it is empty"
    if text.startswith(tuple(f"{name}.call(" for name in SEARCHES)):
        return _read_search(text)
    if text.startswith(FUNCTION):
        name, _, arguments = text.removeprefix(FUNCTION).partition(">")
        return read_function(name, arguments.removesuffix(CLOSE), "json")  # it stands behind the tag, and stays there
    code = [ToolCall(CODE_INTERPRETER, {"code": body})]
    if not text.startswith(("{", "[")):
        return code
    reading = read_objects(text) if text.startswith("{") else read_list(text)
    return code if isinstance(reading, str) and _is_program(text) else reading


def read_objects(text: str, form: Form = "json") -> Reading:
    """JSON calls one after another, with spaces, commas or semicolons between them."""
    calls, at = [], 0
    while at < len(text):
        try:
            value, at = _JSON.raw_decode(text, at)
        except (ValueError, *_TOO_DEEP) as error:
            return f"the tool call is not JSON: {error}"
        call = _call(value, form)
        if isinstance(call, str):
            return call
        calls.append(call)
        between = _BETWEEN.match(text, at)
        at = between.end() if between else at
    return calls


def read_list(text: str, form: Form = "json") -> Reading:
    """`[{"name": ...}, ...]`, or Llama 3.2's list of Python calls `[f(a=1), g.h()]`."""
    try:
        values = _JSON.decode(text)
    except (ValueError, *_TOO_DEEP):
        return _read_python(text, form)
    if not values:
        return "the list holds no tool call"
    return _all_or_reason([_call(value, form) for value in values])


def read_function(name: str, arguments: str, form: Form = "function") -> Reading:
    """The parts of `<function=name>arguments</function>`."""
    try:
        value = _JSON.decode(arguments)
    except (ValueError, *_TOO_DEEP) as error:
        return f"the arguments of {name!r} are not JSON: {error}"
    if not isinstance(value, dict):
        return f"the arguments of {name!r} are not a JSON object"
    return _all_or_reason([_made(name, value, form)])


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is written twice")
        found[key] = value
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_unique)


def _all_or_reason(calls: list[ToolCall | str]) -> Reading:
    """The calls, or the first reason among them."""
    reason = next((call for call in calls if isinstance(call, str)), None)
    return reason if reason is not None else [call for call in calls if isinstance(call, ToolCall)]


def _call(value: Any, form: Form) -> ToolCall | str:
    if not isinstance(value, dict):
        return "the tool call is not a JSON object"
    name, parameters = value.get("name"), value.get("parameters", value.get("arguments"))
    if not isinstance(name, str) or not name:
        return "the tool call has no 'name'"
    if not isinstance(parameters, dict):
        return "the tool call has no 'parameters' object"
    if value.get("type", "function") != "function":
        return f"the tool call is of type {value['type']!r}, not 'function'"
    return _made(name, parameters, form)


def _made(name: str, parameters: dict[str, Any], form: Form) -> ToolCall | str:
    """The call, or why it could not be written again as JSON in UTF-8."""
    try:
        name.encode()
        return ToolCall(name, _json_value(parameters), form)
    except UnicodeEncodeError:
        return "the tool call holds half a surrogate pair"
    except ValueError as error:
        return f"the tool call is not JSON: {error}"


def _read_search(text: str) -> Reading:
    name, inside = text.split(".call(", 1)
    asked = _QUERY.match(inside.lstrip())
    if not asked or not inside.endswith(")"):
        return 'the built-in tool is not called as name.call(query="...")'
    quoted = inside.lstrip()[asked.end() : -1].strip()
    for read in (json.loads, ast.literal_eval):
        try:
            query = read(quoted)
        except (ValueError, SyntaxError, *_TOO_DEEP):
            continue
        if isinstance(query, str):
            return _all_or_reason([_made(name, {"query": query}, "json")])
    return "the query of the built-in tool is not a quoted text"


def _is_program(text: str) -> bool:
    """Whether this is Python that does more than name values."""
    try:
        statements = ast.parse(text).body
    except (ValueError, SyntaxError, *_TOO_DEEP):
        return False
    values = (ast.List, ast.Dict, ast.Set, ast.Tuple)
    return not all(isinstance(each, ast.Expr) and isinstance(each.value, values) for each in statements)


def _read_python(text: str, form: Form) -> Reading:
    refusal = "the list holds neither JSON calls nor Python calls with keyword arguments"
    try:
        tree = ast.parse(text, mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List) else []
        calls = [_python_call(node, form) for node in nodes]
    except (ValueError, SyntaxError, *_TOO_DEEP):
        return refusal
    return _all_or_reason(calls) if calls else refusal


def _python_call(node: ast.expr, form: Form) -> ToolCall | str:
    """One call of the list; ValueError for anything but `name(keyword=literal, ...)`."""
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call with keyword arguments")
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("** in a call")
    parameters = _unique((str(keyword.arg), ast.literal_eval(keyword.value)) for keyword in node.keywords)
    return _made(_dotted(node.func), parameters, form)


def _dotted(node: ast.expr) -> str:
    """`f` or `math.f`; ValueError for what is no name."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError("what is called has no name")


def _json_value(value: Any, depth: int = 0) -> Any:
    """`value` as JSON has it, tuples as lists. ValueError for what JSON or UTF-8 cannot hold."""
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} deep")
    if isinstance(value, list | tuple):
        return [_json_value(item, depth + 1) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {_json_value(key): _json_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, str):
        value.encode()
        return value
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{value!r:.40} is no JSON value")
