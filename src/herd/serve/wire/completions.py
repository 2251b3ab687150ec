"""`/v1/completions`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from herd.serve.wire.chat import ResponseFormat
from herd.serve.wire.common import Alternatives, Answer, Count, SamplingFields, StreamOptions, Text, Usage, several

Id = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[Id], several(least=1, most=2**24)]
Prompts = Text | Ids | Annotated[list[Text], several(least=1)] | Annotated[list[Ids], several(least=1)]


class CompletionRequest(SamplingFields):
    """`logprobs` counts alternatives of each token; with `echo` the prompt's are told too."""

    model: str
    prompt: Prompts
    max_tokens: Annotated[
        Annotated[int, Field(ge=0, le=2**31)] | None, Field(description="16 where it is not given")
    ] = None
    n: Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: Alternatives | None = None
    echo: bool | None = None
    add_special_tokens: Annotated[bool | None, Field(description="false: no begin-of-text before a text")] = None
    response_format: ResponseFormat | None = None


class CompletionLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Answer):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None = Field(description="null while a stream goes on")


class TextCompletion(Answer):
    """The whole answer, or one event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    system_fingerprint: str
    warnings: list[str] | None = None
