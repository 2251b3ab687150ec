"""Grammars for what a model may say: JSON schema, regular expressions, EBNF, choices, enforced tool calls.

    grammars = Grammars(tokenizer, model.config.vocab_size)
    engine.submit(Request(prompt, sampling, grammars.json({"type": "object", "properties": {...}})))

llguidance (extra "grammar") does the work. Compiled grammars are kept, the last used ones, and continuations of one
share what it learns: a mask over 128,256 tokens takes some 20 microseconds. The end of the text is where the grammar is
satisfied: from there stop ids are allowed, and where nothing else could come the continuation ends by itself. Special
tokens never come, but for the stop ids and the python tag before a call.

Compiling may take a second for what is made to be hard: a server does it beside its engine, not in it.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from herd.errors import InputError, SettingError
from herd.generate.grammar_sources import (
    JSON_LAYOUT,
    check_length,
    choice_lark,
    is_gbnf,
    schema_text,
    tools_lark,
)
from herd.generate.grammar_trial import may_take_long, try_out
from herd.generate.matching import Compiled, Vocabulary, library
from herd.text.tokenizer import Tokenizer

_KEPT = 128  # compiled grammars: as many as an engine runs at once and waits for, for servers of agents


class Grammars:
    """Compiles grammars for one tokenizer, and a model of `vocab_size` ids (some may be beyond the tokenizer's).

    Everything raises InputError for what is malformed, unsupported or too complex, with llguidance's reason, and
    MissingExtraError where it is not installed. May be called by several threads.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        if vocab_size < tokenizer.vocab_size:
            raise SettingError(
                f"the tokenizer has {tokenizer.vocab_size} ids, and the model {vocab_size}",
                where="vocab_size",
                mend="take the tokenizer in the model's folder",
            )
        self._tokenizer = tokenizer
        self._vocabulary = Vocabulary(tokenizer, vocab_size)
        self._compiled: OrderedDict[tuple[str, str], Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def json(self, schema: Mapping[str, Any] | None = None) -> Compiled:
        """A JSON value that meets the schema; None: any JSON object.

        What llguidance does not support of JSON schema is refused, never ignored. Layout is free, but for runs of more
        than 64 spaces.
        """
        if schema is not None and not isinstance(schema, Mapping):
            raise InputError("a JSON schema is an object", where="json_schema")
        text = schema_text({"type": "object"} if schema is None else schema)
        return self._compile("json_schema", text, _from_schema)

    def regex(self, pattern: str) -> Compiled:
        """A text that the pattern matches from beginning to end: Rust's syntax, without look-around and references."""
        return self._compile("regex", pattern, lambda text: str(library().LLMatcher.grammar_from_regex(text)))

    def ebnf(self, text: str) -> Compiled:
        """A text of the grammar: llama.cpp's GBNF (`root ::= "a" | b`), or else Lark in llguidance's dialect."""
        return self._compile("ebnf", text, _from_ebnf)

    def choice(self, texts: Sequence[str]) -> Compiled:
        """One of these texts."""
        return self._compile("choice", choice_lark(texts), _from_lark)

    def tools(self, tools: Sequence[Mapping[str, Any]], choice: str = "required", parallel: bool = False) -> Compiled:
        """Calls of `tools` (OpenAI's definitions) whose arguments meet their schemas, and nothing else.

        choice: "required", or the name of the one to call. parallel: several calls may follow one another. A reply
        that ends by the grammar is read by `ReplyStream(tokenizer, names)` into those calls.
        """
        lark = tools_lark(tools, choice, parallel, self._tokenizer.python_tag)
        return self._compile("tools", lark, _from_lark, is_call=True)

    def _compile(self, kind: str, text: str, read: Callable[[str], str], is_call: bool = False) -> Compiled:
        if not isinstance(text, str):
            raise InputError("a grammar is a text", where=kind)
        key = (kind, text)
        with self._lock:
            if key in self._compiled:
                self._compiled.move_to_end(key)
                return self._compiled[key]
        check_length(text, kind)
        grammar = read(text)
        if may_take_long(grammar):
            try_out(grammar, kind)
        compiled = Compiled(self._vocabulary, grammar, kind, is_call=is_call)
        with self._lock:
            self._compiled[key] = compiled
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return compiled


def _from_schema(text: str) -> str:
    # Overrides: "x-guidance" in a schema of a stranger's sets nothing.
    overrides = {**JSON_LAYOUT, "lenient": False, "coerce_one_of": False}
    try:
        return str(library().LLMatcher.grammar_from_json_schema(text, overrides=overrides))
    except ValueError as error:  # nested more deeply than its reader goes
        raise InputError(f"the schema cannot be read: {error}", where="json_schema", mend="flatten it") from error


def _from_lark(text: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def _from_ebnf(text: str) -> str:
    if not is_gbnf(text):
        return _from_lark(text)
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return _from_lark(gbnf_to_lark(text))
    except Exception as error:  # its reader raises bare exceptions, and is recursive
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"the GBNF cannot be read: {reason[:300]}", where="ebnf") from error
