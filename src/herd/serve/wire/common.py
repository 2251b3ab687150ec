"""Fields that several requests and answers share.

A request may hold fields that are not listed: clients send new ones before servers know them. They change nothing, and
the answer says so (`warnings`, and the header `X-Herd-Warnings`). Fields that would change the answer and cannot be
honoured are listed, and refused.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from herd.generate.protocol import MOST_ALTERNATIVES, MOST_BIAS

_SEED = 2**63
Text = Annotated[str, Field(max_length=2**24)]
Count = Annotated[int, Field(ge=1, le=2**31)]
_MOST_ITEMS = 2**14


def several(least: int = 0, most: int = _MOST_ITEMS) -> Any:
    """Every list of a request has this. One wrong element is told of, not a million: pydantic makes an error of about a
    kilobyte for each, so a body within its limit could take all memory. `most` bounds what well-formed ones take."""
    return Field(min_length=least, max_length=most, fail_fast=True)


def _only_biases(given: object) -> object:
    """The first wrong bias alone, for the same reason: mappings know no `fail_fast`."""
    for key, by in given.items() if isinstance(given, dict) else ():
        if isinstance(by, bool) or not isinstance(by, int | float) or not -MOST_BIAS <= by <= MOST_BIAS:
            raise ValueError(f"give a number from -100 to 100 for {str(key)[:20]!r}")
    return given


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    """1e400 is JSON, and an infinity once it is read."""
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, float) and not math.isfinite(one):
            raise ValueError("a number that is too large")
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_finite)]


class Wire(BaseModel):
    """Numbers are numbers and texts are texts: nothing is turned into something else. No NaN."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())


class Answer(BaseModel):
    """What the server sends. `warnings` says what of the request had no effect."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorDetail(Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Answer):
    error: ErrorDetail


class CachedTokens(Answer):
    cached_tokens: int = Field(description="tokens of the prompt that were known and not computed")


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens | None = None


class StreamOptions(Wire):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class StructuredOutputs(Wire):
    """vLLM's: exactly one of these."""

    json_: JsonObject | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: Annotated[list[str], several(least=1)] | None = None
    grammar: str | None = None


class SamplingFields(Wire):
    """How to continue; docs/generation.md says in which order they act. From top_k on they are vLLM's extensions."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: str | Annotated[list[str], several()] | None = None
    seed: Annotated[int, Field(ge=-_SEED, lt=_SEED)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Field(ge=-MOST_BIAS, le=MOST_BIAS)]], BeforeValidator(_only_biases)] | None
    ) = None

    top_k: Annotated[int, Field(ge=-1, le=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], several(most=64)] | None = None
    ignore_eos: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonObject | str | None = None
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], several(least=1)] | None = None
    guided_grammar: str | None = None


Alternatives = Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)]
FinishReason = Literal["stop", "length", "tool_calls"]
