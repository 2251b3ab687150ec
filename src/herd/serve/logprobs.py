"""Log-probabilities in the forms of the chat and of the completions endpoint.

A token is shown as its bytes read as UTF-8 on their own (`bytes` has them exactly; part of a character is U+FFFD).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from herd.generate.protocol import Alternatives
from herd.serve.backend import Said
from herd.text import Tokenizer

_LEAST = -9999.0  # what OpenAI's API gives for a token that cannot be; JSON has no infinity


def finite(logprob: float) -> float:
    return max(logprob, _LEAST)


def shown(tokenizer: Tokenizer, token: int) -> str:
    return _bytes(tokenizer, token).decode("utf-8", errors="replace")


def _bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """Nothing for rows of the embedding beyond the tokenizer's ids: some models have more, to round the number."""
    return tokenizer.token_bytes(token) if token < tokenizer.vocab_size else b""


def chat_logprobs(tokenizer: Tokenizer, said: Sequence[Said], n_top: int) -> list[dict[str, Any]]:
    """`choices[].logprobs.content`."""
    return [
        _entry(tokenizer, token, logprob)
        | {"top_logprobs": [_entry(tokenizer, other, chance) for other, chance in top[:n_top]]}
        for _, token, logprob, top in said
    ]


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    raw = _bytes(tokenizer, token)
    return {"token": raw.decode("utf-8", errors="replace"), "logprob": finite(logprob), "bytes": list(raw)}


def completion_logprobs(
    tokenizer: Tokenizer,
    tokens: Sequence[int],
    logprobs: Sequence[float | None],
    tops: Sequence[Alternatives | None],
    start: int,
) -> dict[str, Any]:
    """`choices[].logprobs` of `/v1/completions`; `start` is where the first token's text begins.

    The token itself is always among its alternatives, as lm-evaluation-harness expects. Two ids that show the same
    text (parts of characters) keep the likelier one's chance.
    """
    offsets, at = [], start
    for token in tokens:
        offsets.append(at)
        at += len(shown(tokenizer, token))
    return {
        "tokens": [shown(tokenizer, token) for token in tokens],
        "token_logprobs": [None if value is None else finite(value) for value in logprobs],
        "top_logprobs": [
            None if top is None or value is None else _by_text(tokenizer, token, value, top)
            for token, value, top in zip(tokens, logprobs, tops, strict=True)
        ],
        "text_offset": offsets,
    }


def _by_text(tokenizer: Tokenizer, token: int, logprob: float, top: Alternatives) -> dict[str, float]:
    found: dict[str, float] = {}
    for other, chance in (*top, (token, logprob)):
        text = shown(tokenizer, other)
        found[text] = max(finite(chance), found.get(text, _LEAST))
    return found
