"""`/v1/completions`: texts or ids continued, several at once, with their log-probabilities, echoed or not."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from herd.generate.protocol import Alternatives, Request
from herd.serve.backend import Served
from herd.serve.choices import Choice
from herd.serve.logprobs import completion_logprobs
from herd.serve.reading import Reader
from herd.serve.replies import refusal
from herd.serve.sampling import check_n, check_told, room_for, sampling_of, warnings_of
from herd.serve.settings import ServeSettings
from herd.serve.structure import grammar_of
from herd.serve.wire.completions import CompletionRequest
from herd.text import Tokenizer

_DEFAULT_TOKENS = 16  # OpenAI's


@dataclass(frozen=True)
class Prompt:
    """Ids, the text that they stand for, and how many of the ids are the server's own (begin-of-text)."""

    ids: tuple[int, ...]
    text: str
    own: int


@dataclass(frozen=True)
class Completions:
    """One request, checked. Answer i continues prompt i // n."""

    prompts: tuple[Prompt, ...]
    requests: tuple[Request, ...]
    n: int
    n_top: int | None
    echo: bool
    silent: bool  # nothing but the prompt was asked for (max_tokens 0)
    warnings: tuple[str, ...] = ()
    usage: bool = False
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def choices(self, served: Served) -> list[Choice]:
        how = self.requests[0].sampling
        return [
            Choice(Reader(served.tokenizer, stops=how.stop, continues=True), frozenset(how.stop_ids))
            for _ in self.requests
        ]

    def head(self, served: Served, name: str) -> dict[str, Any]:
        """What is the same for the whole answer and for each of its events."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": name,
            "system_fingerprint": served.fingerprint,
        }

    def usage_of(self, choices: Sequence[Choice]) -> dict[str, Any]:
        n_prompt = sum(len(prompt.ids) for prompt in self.prompts)
        n_tokens = 0 if self.silent else sum(choice.n_tokens for choice in choices)
        cached = sum(choice.cached for choice in choices[:: self.n])
        return {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_tokens,
            "total_tokens": n_prompt + n_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def read_completions(body: CompletionRequest, served: Served, settings: ServeSettings) -> Completions:
    """ApiError or HerdError for what cannot be done. It encodes text: not for the event loop."""
    warnings = warnings_of(body)
    prompts = read_prompts(body.prompt, served, bos=body.add_special_tokens is not False)
    n = check_n(body.n, settings)
    if n * len(prompts) > settings.max_n:
        raise refusal(f"{len(prompts)} prompts with n {n}, and {settings.max_n} answers are the most", param="prompt")
    told = bool(body.echo) and body.logprobs is not None
    if told and body.stream:
        raise refusal("the prompt's log-probabilities are not streamed", param="stream")
    silent = body.max_tokens == 0
    wanted = _DEFAULT_TOKENS if body.max_tokens is None else max(1, body.max_tokens)
    grammar = grammar_of(body, body.response_format, served)
    sampling = None
    requests: list[Request] = []
    for prompt in prompts:
        room = room_for(len(prompt.ids), wanted, served, settings, "prompt", warnings)
        sampling = sampling_of(
            body, served, settings, max_tokens=room, top_logprobs=body.logprobs or 0, prompt_logprobs=told
        )
        requests += Request(prompt.ids, sampling, grammar).candidates(n)
    check_told(sum(_told(request) for request in requests), body.logprobs, settings)
    usage = bool(body.stream_options and body.stream_options.include_usage)
    return Completions(
        tuple(prompts), tuple(requests), n, body.logprobs, bool(body.echo), silent, tuple(warnings), usage
    )


def _told(request: Request) -> int:
    """Tokens whose log-probabilities an answer may come to hold."""
    return request.sampling.max_tokens + len(request.prompt) * request.sampling.prompt_logprobs


def read_prompts(given: str | Sequence[Any], served: Served, *, bos: bool) -> list[Prompt]:
    """Texts, with begin-of-text before them, or ids as they are; one or several."""
    if isinstance(given, str):
        return [_of_text(given, served.tokenizer, bos)]
    several: Sequence[Any] = [given] if isinstance(given[0], int) else given
    return [_of_text(one, served.tokenizer, bos) if isinstance(one, str) else _of_ids(one, served) for one in several]


def _of_text(text: str, tokenizer: Tokenizer, bos: bool) -> Prompt:
    ids = tokenizer.encode(text)
    if not bos and not ids:
        raise refusal("an empty prompt", param="prompt")
    return Prompt((tokenizer.bos, *ids) if bos else tuple(ids), text, int(bos))


def _of_ids(ids: Sequence[int], served: Served) -> Prompt:
    if max(ids) >= served.vocab_size:
        raise refusal(f"an id outside the vocabulary of {served.vocab_size}", param="prompt")
    return Prompt(tuple(ids), served.tokenizer.decode(ids), 0)


def text_completion(asked: Completions, choices: Sequence[Choice], served: Served, name: str) -> dict[str, Any]:
    """The whole answer."""
    return asked.head(served, name) | {
        "choices": [completion_choice(asked, index, choice, served) for index, choice in enumerate(choices)],
        "usage": asked.usage_of(choices),
    }


def completion_choice(asked: Completions, index: int, choice: Choice, served: Served) -> dict[str, Any]:
    prompt = asked.prompts[index // asked.n]
    said = "" if asked.silent else "".join(choice.text)
    return {
        "index": index,
        "text": prompt.text + said if asked.echo else said,
        "logprobs": None if asked.n_top is None else _logprobs(asked, prompt, choice, served.tokenizer),
        "finish_reason": "length" if asked.silent else choice.finish,
    }


def _logprobs(asked: Completions, prompt: Prompt, choice: Choice, tokenizer: Tokenizer) -> dict[str, Any]:
    """Of the prompt too, where it is echoed: its first id follows nothing and has none."""
    n_top = asked.n_top or 0
    tokens: list[int] = []
    logprobs: list[float | None] = []
    tops: list[Alternatives | None] = []
    if asked.echo and choice.completion is not None:
        whole = choice.completion
        n_rest = len(prompt.ids) - 1
        tokens += prompt.ids[prompt.own :]
        logprobs += [None, *whole.prompt_logprobs][prompt.own :]
        tops += [None, *(whole.prompt_top_logprobs or ((),) * n_rest)][prompt.own :]
    for one in [] if asked.silent else choice.said:
        tokens.append(one.token)
        logprobs.append(one.logprob)
        tops.append(one.top[:n_top])
    return completion_logprobs(tokenizer, tokens, logprobs, tops, 0)
