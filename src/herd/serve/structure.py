"""Answers held to a form: `response_format`, and vLLM's `structured_outputs` and `guided_...`, as grammars."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from herd.errors import HerdError
from herd.generate.protocol import Grammar
from herd.serve.backend import Served
from herd.serve.replies import refusal
from herd.serve.wire.chat import ResponseFormat
from herd.serve.wire.common import SamplingFields

if TYPE_CHECKING:
    from herd.generate.grammars import Grammars

Make = Callable[["Grammars"], Grammar]


@lru_cache(maxsize=4)
def grammars(served: Served) -> Grammars:
    """The grammars over a model's vocabulary. MissingExtraError without the library."""
    from herd.generate.grammars import Grammars

    return Grammars(served.tokenizer, served.vocab_size)


def compiled(served: Served, make: Make, param: str) -> Grammar:
    """ApiError for a form that is malformed or not supported."""
    try:
        return make(grammars(served))
    except HerdError as error:
        said = error.message if not error.mend else f"{error.message}; {error.mend}"
        raise refusal(said, param=param, code="invalid_format") from error


def grammar_of(body: SamplingFields, wanted: ResponseFormat | None, served: Served) -> Grammar | None:
    """The form that an answer is held to, if any. ApiError for more than one."""
    found = [*_from_format(wanted), *_from_fields(body)]
    if not found:
        return None
    if len(found) > 1:
        raise refusal(f"two forms for one answer: {found[0][0]} and {found[1][0]}", param=found[1][0])
    param, make = found[0]
    return compiled(served, make, param)


def _from_format(wanted: ResponseFormat | None) -> list[tuple[str, Make]]:
    if wanted is None or wanted.type == "text":
        return []
    if wanted.type == "json_object":
        return [("response_format", lambda grammars: grammars.json(None))]
    schema = wanted.json_schema.schema_ if wanted.json_schema else None
    if schema is None:
        raise refusal("a json_schema format without its schema", param="response_format.json_schema.schema")
    return [("response_format", lambda grammars: grammars.json(schema))]


def _from_fields(body: SamplingFields) -> list[tuple[str, Make]]:
    inner = body.structured_outputs
    pairs: list[tuple[str, Any, Callable[[Any], Make]]] = [
        ("guided_json", body.guided_json, _json),
        ("guided_regex", body.guided_regex, lambda text: lambda grammars: grammars.regex(text)),
        ("guided_choice", body.guided_choice, lambda texts: lambda grammars: grammars.choice(texts)),
        ("guided_grammar", body.guided_grammar, lambda text: lambda grammars: grammars.ebnf(text)),
    ]
    if inner is not None:
        values = (inner.json_, inner.regex, inner.choice, inner.grammar)
        pairs += [
            (f"structured_outputs.{name.removeprefix('guided_')}", value, make)
            for (name, _, make), value in zip(pairs, values, strict=True)
        ]
    return [(name, make(value)) for name, value, make in pairs if value is not None]


def _json(schema: Mapping[str, Any] | str) -> Make:
    if isinstance(schema, str):
        try:
            read = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise refusal("the schema is not JSON", param="guided_json") from error
        if not isinstance(read, dict):
            raise refusal("the schema is not a JSON object", param="guided_json")
        schema = read
    return lambda grammars: grammars.json(schema)
