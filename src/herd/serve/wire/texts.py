"""`/v1/embeddings`, `/tokenize` and `/detokenize`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from herd.serve.wire.chat import ChatMessage, Tool
from herd.serve.wire.common import Answer, Text, Wire, several
from herd.serve.wire.completions import Id, Prompts


class EmbeddingRequest(Wire):
    model: str
    input: Prompts
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Field(description="base64: float32, little-endian")
    ] = None
    dimensions: Annotated[
        Annotated[int, Field(ge=1)] | None, Field(description="the model's width; no other is there")
    ] = None
    user: str | None = None


class Embedding(Answer):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class Embeddings(Answer):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    warnings: list[str] | None = None


class TokenizeRequest(Wire):
    """A text, or a conversation as the model would be given it."""

    model: str | None = None
    prompt: Text | None = None
    messages: Annotated[list[ChatMessage], several(least=1)] | None = None
    tools: Annotated[list[Tool], several()] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class Tokenized(Answer):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None
    warnings: list[str] | None = None


class DetokenizeRequest(Wire):
    model: str | None = None
    tokens: Annotated[list[Id], several(most=2**24)]


class Detokenized(Answer):
    prompt: str
    warnings: list[str] | None = None
