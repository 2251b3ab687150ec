"""Fields that several requests and answers share.

A request may hold fields that are not listed: clients send new ones before servers know them. They change nothing, and
the answer says so (`warnings`, and the header `X-Herd-Warnings`). Fields that would change the answer and cannot be
honoured are listed, and refused.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from herd.generate.protocol import MOST_ALTERNATIVES

_SEED = 2**63
Text = Annotated[str, Field(max_length=2**24)]
Count = Annotated[int, Field(ge=1, le=2**31)]


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
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    grammar: str | None = None


class SamplingFields(Wire):
    """How to continue; docs/generation.md says in which order they act. From top_k on they are vLLM's extensions."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-_SEED, lt=_SEED)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None

    top_k: Annotated[int, Field(ge=-1, le=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)] | None = None
    ignore_eos: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonObject | str | None = None
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Field(min_length=1)] | None = None
    guided_grammar: str | None = None


Alternatives = Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)]
FinishReason = Literal["stop", "length", "tool_calls"]
