"""`/v1/completions`, `/v1/embeddings`, `/tokenize`, `/detokenize`: what knows no conversation."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from herd.serve.backend import Served
from herd.serve.completions import Prompt, read_completions, read_prompts, text_completion
from herd.serve.completions_stream import CompletionsStream
from herd.serve.described import described
from herd.serve.logprobs import shown
from herd.serve.messages import messages_of
from herd.serve.replies import refusal
from herd.serve.sampling import warnings_of
from herd.serve.service import answered, service_of, warned
from herd.serve.settings import ServeSettings
from herd.serve.sse import EventStream
from herd.serve.strict_json import StrictRoute
from herd.serve.toolbox import Toolbox
from herd.serve.wire.completions import CompletionRequest, TextCompletion
from herd.serve.wire.texts import (
    Detokenized,
    DetokenizeRequest,
    EmbeddingRequest,
    Embeddings,
    Tokenized,
    TokenizeRequest,
)
from herd.text import encode_prompt

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/completions", **described(TextCompletion, "completions", stream=TextCompletion))
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Texts or ids continued."""
    service = service_of(request)
    served = service.served(body.model)
    asked = await service.read(request, read_completions, body, served, service.settings)
    answers = service.submit(asked.requests)
    if body.stream:
        stream = CompletionsStream(asked, served, service.name)
        return EventStream(stream.events(answers), answers.cancel, warned(asked.warnings))
    choices = asked.choices(served)
    await answered(request, answers, choices)
    return await service.write(text_completion, asked, choices, served, service.name, warnings=asked.warnings)


@router.post("/v1/embeddings", **described(Embeddings, "embeddings"))
async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
    """Texts as vectors: the mean of the model's last hidden states, of length 1. The model was not trained for it."""
    service = service_of(request)
    served = service.served(body.model)
    if not served.embeds:
        raise refusal("this engine gives no embeddings", code="unsupported")
    warnings = warnings_of(body)
    prompts = await service.read(request, _texts, body, served, service.settings)
    vectors = await service.embed([prompt.ids for prompt in prompts], request)
    if body.dimensions not in (None, len(vectors[0])):
        raise refusal(f"the model's vectors have {len(vectors[0])} dimensions", param="dimensions")
    n_tokens = sum(len(prompt.ids) for prompt in prompts)
    packed = body.encoding_format == "base64"
    return await service.write(_embeddings, vectors, packed, n_tokens, service.name, warnings=warnings)


def _embeddings(vectors: Sequence[list[float]], packed: bool, n_tokens: int, name: str) -> dict[str, object]:
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
            for index, vector in enumerate(vectors)
        ],
        "model": name,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }


def _texts(body: EmbeddingRequest, served: Served, settings: ServeSettings) -> list[Prompt]:
    prompts = read_prompts(body.input, served, bos=True)
    if len(prompts) > settings.max_inputs:
        raise refusal(f"{len(prompts)} texts, and {settings.max_inputs} are the most", param="input")
    most = min(settings.max_embedding_tokens, served.context)
    longest = max(len(prompt.ids) for prompt in prompts)
    if longest > most:
        raise refusal(
            f"a text has {longest} tokens, and {most} is the most", param="input", code="context_length_exceeded"
        )
    return prompts


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


@router.post("/tokenize", **described(Tokenized, "tokens"))
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The ids of a text, or of a conversation as the model is given it."""
    service = service_of(request)
    served = service.served(body.model or service.name)
    warnings = warnings_of(body)
    ids = await service.read(request, _ids, body, served, service.settings)
    return await service.write(_tokenized, ids, bool(body.return_token_strs), served, warnings=warnings)


def _tokenized(ids: list[int], strings: bool, served: Served) -> dict[str, object]:
    answer: dict[str, object] = {"count": len(ids), "max_model_len": served.room, "tokens": ids}
    return answer | ({"token_strs": [shown(served.tokenizer, token) for token in ids]} if strings else {})


def _ids(body: TokenizeRequest, served: Served, settings: ServeSettings) -> list[int]:
    if (body.prompt is None) == (body.messages is None):
        raise refusal("give either prompt or messages", param="prompt")
    if body.messages is None:
        ids = served.tokenizer.encode(body.prompt or "")
        return ids if body.add_special_tokens is False else [served.tokenizer.bos, *ids]
    if not served.tokenizer.can_chat:
        raise refusal("this model has no chat format; give prompt", code="no_chat_format")
    toolbox = Toolbox.of([tool.function for tool in body.tools or ()], None, None, settings)
    return encode_prompt(served.tokenizer, toolbox.prepare(messages_of(body.messages, settings)))


@router.post("/detokenize", **described(Detokenized, "tokens"))
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of ids, special tokens spelled."""
    service = service_of(request)
    served = service.served(body.model or service.name)
    warnings = warnings_of(body)
    text = await service.read(request, _text, body, served)
    return await service.write(dict, {"prompt": text}, warnings=warnings)


def _text(body: DetokenizeRequest, served: Served) -> str:
    if any(token >= served.tokenizer.vocab_size for token in body.tokens):
        raise refusal(f"an id outside the vocabulary of {served.tokenizer.vocab_size}", param="tokens")
    return served.tokenizer.decode(body.tokens)
