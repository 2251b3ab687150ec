"""The sampling fields of a request as `Sampling`, and what of a request had no effect."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from herd.generate.protocol import Sampling
from herd.serve.backend import Served
from herd.serve.replies import refusal
from herd.serve.settings import ServeSettings
from herd.serve.wire.chat import ChatMessage
from herd.serve.wire.common import SamplingFields

_MOST_WARNINGS = 20
_LONGEST_STOP = 1000  # characters; each is looked for with every token
# Fields of OpenAI's API that would change the answer, and what to do instead.
_REFUSED = {
    "audio": "this server answers in text",
    "best_of": "give n, and choose among the answers",
    "function_call": "give tool_choice",
    "functions": "give tools",
    "images": "the model reads text only",
    "min_tokens": "bias the ids that end an answer instead",
    "suffix": "the model continues text and fills no gaps",
    "use_beam_search": "answers are sampled; give n",
    "web_search_options": "offer a search of your own as a tool",
}
# Fields that say something about the caller or the bill: they are read, and nothing follows from them.
_HARMLESS = {
    *("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"),
    *("store", "prediction", "skip_special_tokens", "spaces_between_special_tokens"),
}


def warnings_of(body: BaseModel, where: str = "") -> list[str]:
    """What the request says that has no effect. ApiError for what would have to have one."""
    found = []
    for key, value in (body.model_extra or {}).items():
        if key == "skip_special_tokens" and value is False:
            found.append("special tokens are never shown; skip_special_tokens has no effect")
        if value is None or value is False or value == []:
            continue
        if key in _REFUSED:
            said = f"{key} is not supported; {_REFUSED[key]}"
            raise refusal(said, param=f"{where}{key}", code="unsupported_parameter")
        if key == "modalities" and value != ["text"]:
            raise refusal("this server answers in text only", param=key, code="unsupported_parameter")
        if key not in _HARMLESS and key != "modalities":
            found.append(f"{where}{key:.64} is not known here and has no effect")
    return _few(found)


def warnings_of_messages(messages: Sequence[ChatMessage], place: str = "messages") -> list[str]:
    """The same for the messages of a request. Llama 3.1's format has no word for names and refusals."""
    found: list[str] = []
    for number, message in enumerate(messages):
        where = f"{place}[{number}]."
        found += warnings_of(message, where)
        found += [f"{where}{key} has no effect" for key in ("name", "refusal") if getattr(message, key)]
    return _few(found)


def _few(found: list[str]) -> list[str]:
    if len(found) > _MOST_WARNINGS:
        found[_MOST_WARNINGS:] = [f"{len(found) - _MOST_WARNINGS} more fields have no effect"]
    return found


def sampling_of(
    body: SamplingFields,
    served: Served,
    settings: ServeSettings,
    *,
    max_tokens: int,
    bias: Mapping[int, float] | None = None,
    **more: Any,
) -> Sampling:
    """How to continue. Without a seed one is drawn, so that equal requests differ. ApiError for what cannot be.

    `bias` wins over the request's own.
    """
    stops = _stops(body.stop, settings)
    return Sampling(
        temperature=1.0 if body.temperature is None else float(body.temperature),
        top_p=1.0 if body.top_p is None else float(body.top_p),
        max_tokens=max_tokens,
        stop_ids=_stop_ids(body, served),
        seed=secrets.randbits(62) if body.seed is None else body.seed,
        top_k=max(0, body.top_k or 0),
        min_p=float(body.min_p or 0.0),
        repetition_penalty=1.0 if body.repetition_penalty is None else float(body.repetition_penalty),
        presence_penalty=float(body.presence_penalty or 0.0),
        frequency_penalty=float(body.frequency_penalty or 0.0),
        logit_bias=tuple((_bias(body.logit_bias or {}, served) | dict(bias or {})).items()),
        stop=stops,
        **more,
    )


def _stops(stop: str | list[str] | None, settings: ServeSettings) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if len(stops) > settings.max_stops:
        raise refusal(f"{len(stops)} stop texts, and {settings.max_stops} are allowed", param="stop")
    if any(len(text) > _LONGEST_STOP for text in stops):
        raise refusal(f"a stop text has more than {_LONGEST_STOP} characters", param="stop")
    return tuple(stops)


def _stop_ids(body: SamplingFields, served: Served) -> tuple[int, ...]:
    own: Iterable[int] = () if body.ignore_eos else served.tokenizer.stop_ids
    wanted = body.stop_token_ids or []
    if any(token >= served.vocab_size for token in wanted):
        raise refusal(f"an id outside the vocabulary of {served.vocab_size}", param="stop_token_ids")
    return tuple(dict.fromkeys([*own, *wanted]))


def _bias(bias: Mapping[str, float], served: Served) -> dict[int, float]:
    found: dict[int, float] = {}
    for key, by in bias.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < served.vocab_size):
            raise refusal(f"logit_bias names {key[:20]!r}; give ids under {served.vocab_size}", param="logit_bias")
        found[int(key)] = float(by)
    return found


def check_n(n: int | None, settings: ServeSettings) -> int:
    if (n or 1) > settings.max_n:
        raise refusal(f"n is {n}, and {settings.max_n} is the most", param="n")
    return n or 1


def check_told(n_tokens: int, n_top: int | None, settings: ServeSettings) -> None:
    """ApiError for more log-probabilities than one answer may hold. n_top: alternatives a token; None: none at all."""
    if n_top is not None and n_tokens * (n_top + 1) > settings.max_told:
        raise refusal(
            f"up to {n_tokens} tokens with {n_top} alternatives each, and {settings.max_told} log-probabilities are "
            "the most in one answer; lower max_tokens, n or the alternatives",
            param="logprobs",
        )


def room_for(
    prompt: int, wanted: int | None, served: Served, settings: ServeSettings, param: str, warnings: list[str]
) -> int:
    """How many tokens the answer to a prompt of so many may have; a warning where that is fewer than were asked for.

    ApiError for a prompt that leaves no room, which says how long it may be.
    """
    most = min(served.room - 1, settings.max_prompt_tokens or served.room)
    if prompt > most:
        raise refusal(
            f"the prompt has {prompt} tokens, and {most} is the most here: the model's context is {served.context} "
            f"tokens, prompt and answer together may take {served.room}",
            param=param,
            code="context_length_exceeded",
        )
    left = min(served.room - prompt, settings.max_answer_tokens or served.room)
    if wanted is not None and wanted > left:
        warnings.append(f"an answer can have {left} tokens at most here, and {wanted} were asked for")
    return min(settings.default_max_tokens if wanted is None else wanted, left)
