"""What grammars are written as for llguidance: its Lark dialect, with JSON schemas inside.

Nothing here needs the library; `herd.generate.grammars` compiles what this writes. Every function raises InputError for
what cannot be meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from herd.errors import FormatError, InputError
from herd.text.tools import tool_names

MOST_CHARACTERS = 200_000  # of a schema, a pattern, a grammar: OpenAI's limit is 120,000 for all names of a schema
_DEEPEST = 200  # brackets in one another: llguidance takes half as many, and Python's own JSON writer five times
_GBNF_RULE = re.compile(r"(?m)^\s*[\w-]+\s*::=")
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_SCHEMA_LISTS = ("anyOf", "oneOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties")
_OPEN = {"additionalProperties", "patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "$ref"}
# One line, with the spaces that herd and Meta write: a model wastes no tokens on layout, and most of a call is forced.
_CALL_LAYOUT = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
# Room for indentation, but not for the endless white space that models fall into when nothing else is likely.
JSON_LAYOUT = {"whitespace_pattern": r"[ \n\r\t]{1,64}", "whitespace_flexible": True}


def choice_lark(texts: Sequence[str]) -> str:
    """One of these texts, whole."""
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise InputError("a choice is a list of texts, one at least", where="choice")
    return f"start: {' | '.join(map(_quoted, dict.fromkeys(texts)))}"


def is_gbnf(text: str) -> bool:
    """Whether a grammar is written as llama.cpp does (`root ::= ...`), not as Lark (`start: ...`)."""
    return _GBNF_RULE.search(text) is not None


def tools_lark(tools: Sequence[Mapping[str, Any]], choice: str, parallel: bool, python_tag: int | None) -> str:
    """Calls of `tools` as Llama 3.1 writes them: JSON objects, the python tag before the first of them or not.

    choice: "required", or the one function to be called. parallel: further calls may follow, "; " between them.
    """
    functions = _functions(tools)
    if choice != "required":
        if choice not in functions:
            raise InputError(
                f"tool_choice names {choice!r}, and there is no such tool",
                where="tool_choice",
                mend=f"name one of {', '.join(functions) or 'your tools'}, or say required",
            )
        functions = {choice: functions[choice]}
    if not functions:
        raise InputError("a tool call is required, and there are no tools", where="tools")
    tag = f"<[{python_tag}]>? " if python_tag is not None else ""
    more = ' ("; " call)*' if parallel else ""
    kind, names = _quoted('"type": "function", '), " | ".join(f"f{i}" for i in range(len(functions)))
    rules = [f"start: {tag}call{more}", f"call: {_quoted('{')} {kind}? ({names})"]
    for i, (name, schema) in enumerate(functions.items()):
        head = f'"name": {json.dumps(name, ensure_ascii=False)}, "parameters": '
        rules.append(f"f{i}: {_quoted(head)} %json {schema_text(schema, f'tool {name!r}')} {_quoted('}')}")
    return "\n".join(rules) + "\n"


def schema_text(schema: Any, where: str = "json_schema") -> str:
    """A schema as JSON. InputError for what is none, too long, or nested too deeply."""
    check_depth(schema, where)
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError) as error:  # a lone surrogate is a ValueError too
        raise InputError(f"the schema is not JSON: {error}", where=where) from error
    check_length(text, where)
    return text


def check_length(text: str, where: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise InputError(
            f"it has {len(text)} characters", where=where, mend=f"give {MOST_CHARACTERS} at most: shorten or split it"
        )


def check_depth(value: Any, where: str) -> None:
    """InputError for JSON nested deeper than can be read; walked without recursion."""
    level = [value]
    for _ in range(_DEEPEST):
        inner = [list(one.values()) if isinstance(one, Mapping) else one for one in level]
        level = [child for one in inner if isinstance(one, list | tuple) for child in one]
        if not level:
            return
        if len(level) > MOST_CHARACTERS:
            break
    raise InputError("the schema is nested too deeply, or too large", where=where, mend="flatten it with $defs")


def _functions(tools: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The name of each tool and the schema that its arguments must meet."""
    try:
        names = tool_names(tools)
    except FormatError as error:
        raise InputError(error.message, where=error.where, mend=error.mend) from error
    for name in names:
        if json.dumps(name, ensure_ascii=False) != f'"{name}"':  # without the python tag such a call is not recognised
            raise InputError(f"{name!r} is no name for a tool", where="tools", mend="use letters, digits, _ and -")
    if len(set(names)) < len(names):
        raise InputError("two tools have one name", where="tools", mend="rename one of them")
    schemas = [(tool.get("function", tool)).get("parameters") for tool in tools]
    return {name: _arguments(schema, name) for name, schema in zip(names, schemas, strict=True)}


def _arguments(schema: Any, name: str) -> dict[str, Any]:
    """The schema of a function's arguments: an object, laid out on one line, without keys that it does not name."""
    where = f"tool {name!r}"
    if schema is None:
        schema = {"type": "object", "properties": {}}
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise InputError("the parameters of a tool are a JSON schema of an object", where=where)
    check_depth(schema, where)
    known = {"type": "object", **schema}
    # Where schemas are put together, each part alone must stay open for the keys of the others.
    closed = known if "allOf" in schema_text(schema, where) else _closed(known)
    return {**closed, "x-guidance": _CALL_LAYOUT}


def _closed(schema: Any) -> Any:
    """The schema with "additionalProperties": false wherever it names keys and says nothing of others.

    JSON schema leaves such objects open, but a function takes only what it names (OpenAI's strict mode asks for it).
    """
    if not isinstance(schema, Mapping):
        return schema
    inner = {key: _closed_inside(key, value) for key, value in schema.items()}
    names_keys = "properties" in inner and inner.get("type", "object") == "object"
    return inner if _OPEN & set(inner) or not names_keys else {**inner, "additionalProperties": False}


def _closed_inside(key: str, value: Any) -> Any:
    if key in _SCHEMAS_BY_NAME and isinstance(value, Mapping):
        return {name: _closed(schema) for name, schema in value.items()}
    if key in _SCHEMA_LISTS and isinstance(value, list | tuple):
        return [_closed(schema) for schema in value]
    return _closed(value) if key in _SCHEMAS else value


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError("a text holds half a surrogate pair", where="grammar") from error
    return json.dumps(text, ensure_ascii=False)
