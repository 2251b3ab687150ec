"""Compiled grammars and their masks: llguidance behind the protocol `Constraint`."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herd.errors import InputError, MissingExtraError
from herd.generate.json_guard import JsonGuard, Suspects
from herd.text.tokenizer import Tokenizer

Mask = NDArray[np.bool_]

# Fifth parts of llguidance's own: grammars that people write need a hundredth, and a step that takes milliseconds makes
# all other requests of the batch wait. 50,000 states of a lexer are up to 100 MB.
_LIMITS = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 40_000,
    "step_max_items": 10_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,  # they repeat the grammar
}


def library() -> Any:
    """The module `llguidance`; MissingExtraError names the extra when it is not installed."""
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtraError("llguidance", "grammar") from error
    return llguidance


class Vocabulary:
    """A tokenizer as llguidance sees it: bytes, special ids, stop ids."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.tokenizer, self.vocab_size = tokenizer, vocab_size
        self.tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        specials = [token for token in range(tokenizer.vocab_size) if tokenizer.is_special(token)]
        # what `TokenizerWrapper` asks for
        self.eos_token_id, self.bos_token_id, self.special_token_ids = tokenizer.eot, tokenizer.bos, specials
        allowed = {*tokenizer.stop_ids, *([] if tokenizer.python_tag is None else [tokenizer.python_tag])}
        self.forbidden = np.array([token for token in specials if token not in allowed], dtype=np.int64)
        guidance = library()
        self.guidance = guidance.LLTokenizer(
            guidance.TokenizerWrapper(self), n_vocab=tokenizer.vocab_size, eos_token=list(tokenizer.stop_ids)
        )
        self.limits = guidance.LLParserLimits(**_LIMITS)

    @cached_property
    def suspects(self) -> Suspects:
        return Suspects(self.tokens)

    def __call__(self, text: str | bytes) -> list[int]:
        """How the model would cut a text that a grammar forces.

        Llama 2's kind writes a space before every text; behind a line break it is not in the way. For bytes that are no
        text, single bytes do.
        """
        raw = text.encode() if isinstance(text, str) else text
        before = b"\n" if self.tokenizer.prefixes_space else b""
        try:
            ids = self.tokenizer.encode((before + raw).decode())
        except UnicodeDecodeError:
            ids = []
        while before and ids and self.tokens[ids[0]] in (b" ", b"\n"):
            if self.tokens[ids.pop(0)] == before:
                break
        if b"".join(self.tokens[token] for token in ids) == raw:
            return ids
        return [self._bytes[byte] for byte in raw]

    @cached_property
    def _bytes(self) -> dict[int, int]:
        return {raw[0]: token for token, raw in enumerate(self.tokens) if len(raw) == 1}

    def matcher(self, grammar: str) -> Any:
        return library().LLMatcher(self.guidance, grammar, limits=self.limits, log_level=0)


class Compiled:
    """A grammar, ready for any number of continuations. Raises InputError for one that nothing can be made of.

    `source` is what it is written as, llguidance's JSON form: other engines that use the library read it.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: str, where: str, *, is_call: bool = False) -> None:
        self._vocabulary, self._is_call, self.source = vocabulary, is_call, grammar
        if vocabulary.tokenizer.prefixes_space:
            grammar = _behind_a_space(grammar)
        self._matcher = vocabulary.matcher(grammar)
        self._first: Mask | None = None
        try:
            self._first = self.start().mask()  # every continuation begins with it
        except InputError as error:
            raise InputError(error.message, where=where) from error
        self._first.flags.writeable = False

    def start(self) -> Matching:
        """A constraint at its beginning."""
        return Matching(self._vocabulary, self._matcher.deep_copy(), self._first, self._is_call)


class Matching:
    """One continuation of a grammar (`Constraint`). `first`: its first mask, where that is known."""

    def __init__(self, vocabulary: Vocabulary, matcher: Any, first: Mask | None, is_call: bool) -> None:
        self._vocabulary, self._matcher, self._first = vocabulary, matcher, first
        self._guard = JsonGuard(vocabulary.suspects) if is_call else None

    def mask(self) -> Mask:
        """[V] of the model's vocabulary; none at all where the text is whole.

        Raises InputError where the grammar turns out too complex, or leads nowhere.
        """
        if self._first is not None:
            return self._first
        self._raise_error()
        mask = np.zeros(self._vocabulary.vocab_size, dtype=np.bool_)
        if self._matcher.is_stopped():
            return mask
        size = len(self._vocabulary.tokens)
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._raise_error()
        mask[:size] = np.unpackbits(bits, count=size, bitorder="little").view(np.bool_)
        mask[self._vocabulary.forbidden] = False
        if self._guard is not None:
            self._guard.narrow(mask)
        if not mask.any():
            raise InputError("the grammar leads nowhere from here", where="grammar")
        return mask

    def advance(self, token: int) -> None:
        """`token` came. Raises InputError for one that the grammar does not take."""
        self._first = None
        self._matcher.consume_token(token)
        self._raise_error()
        if self._guard is not None and not self._vocabulary.tokenizer.is_special(token):
            self._guard.advance(self._vocabulary.tokens[token])

    def forced(self) -> list[int]:
        """The ids of a text that the grammar leaves no choice about."""
        return [] if self._matcher.is_error() else [int(token) for token in self._matcher.compute_ff_tokens()]

    def _raise_error(self) -> None:
        if self._matcher.is_error():
            raise InputError(f"the grammar cannot be followed: {_short(self._matcher.get_error())}", where="grammar")


def _short(reason: str) -> str:
    line = " ".join(reason.replace("<non-verbose/>", "").split())
    if "NoExtensionBias" in line:
        return "no text meets it"
    return line if len(line) <= 300 else f"{line[:300]}..."


def _behind_a_space(grammar: str) -> str:
    """The grammar with a space before it or none: a decoder of Llama 2's kind takes one off the first token."""
    inner = json.loads(grammar)
    inner["grammars"][0]["name"] = "inner"
    return json.dumps({**inner, "grammars": [{"lark_grammar": 'start: " "? @inner'}, *inner["grammars"]]})
