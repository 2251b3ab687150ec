"""`/set`: the settings of sampling, by the names that the server's API has for them.

A value is told as it can be typed, which is JSON; of a stop text the quotes may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from herd.errors import SettingError
from herd.generate import Sampling

DEFAULT = "default"  # typed for a value: what the conversation began with


def changed(sampling: Sampling, name: str, text: str) -> Sampling:
    """`sampling` with what `text` says for `name`. Raises SettingError for what is no setting, or no value of it."""
    try:
        value = SETTINGS[_known(name)](text.strip())
    except SettingError as error:
        raise SettingError(error.message, where=name, mend=error.mend) from error
    return replace(sampling, **{_field(name): value})


def reset(sampling: Sampling, begun: Sampling, name: str) -> Sampling:
    """`sampling` with the value that the setting had in `begun`."""
    field = _field(_known(name))
    return replace(sampling, **{field: getattr(begun, field)})


def told(sampling: Sampling, name: str) -> str:
    """The value, as `changed` reads it."""
    return json.dumps(value_of(sampling, _known(name)), ensure_ascii=False)


def value_of(sampling: Sampling, name: str) -> Any:
    """The value as the API has it: a number, a list, or an object of ids and what is added to their logits."""
    value = getattr(sampling, _field(name))
    if name == "logit_bias":
        return {str(token): by for token, by in value}
    return list(value) if isinstance(value, tuple) else value


def _known(name: str) -> str:
    if name not in SETTINGS:
        raise SettingError(f"there is no setting {name!r}", mend=f"set one of {', '.join(SETTINGS)}")
    return name


def _field(name: str) -> str:
    return "stop_ids" if name == "stop_token_ids" else name


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise SettingError(f"{text!r} is no whole number", mend="give one, such as 5") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise SettingError(f"{text!r} is no number", mend="give one, such as 0.5") from error


def _texts(text: str) -> tuple[str, ...]:
    """One text as it stands, one in JSON's quotes (for line ends and spaces), or a JSON list of them; [] is none."""
    if text[:1] not in ('"', "["):
        return (text,)
    found = _json(text, 'give a text as it stands, "in quotes\\n", or a list: ["one", "another"]')
    found = found if isinstance(found, list) else [found]
    if not all(isinstance(each, str) for each in found):
        raise SettingError(f"{text} holds other than texts", mend='write ["one", "another"]')
    return tuple(found)


def _ids(text: str) -> tuple[int, ...]:
    """Whole numbers from 0 on, with blanks or commas between them, or a JSON list; [] is none."""
    words = text.removeprefix("[").removesuffix("]").replace(",", " ").split()
    if not all(word.isascii() and word.isdigit() for word in words):
        raise SettingError(f"{text} is no list of ids", mend="give ids of the vocabulary, such as [13, 271]")
    return tuple(map(int, words))


def _bias(text: str) -> tuple[tuple[int, float], ...]:
    """What a JSON object adds to the logits of ids; {} is nothing."""
    mend = 'give ids and numbers from -100 to 100: {"13": -5}'
    found = _json(text, mend)
    numbers = isinstance(found, dict) and all(
        key.isascii() and key.isdigit() and type(by) in (int, float) for key, by in found.items()
    )
    if not numbers:
        raise SettingError(f"{text} is no bias", mend=mend)
    return tuple((int(key), by) for key, by in found.items())


def _json(text: str, mend: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{text} is no JSON", mend=mend) from error


# As in `herd.serve.sampling`, but for `ignore_eos`: what goes on behind its end is no message of a conversation.
SETTINGS: dict[str, Callable[[str], Any]] = {
    "temperature": _number,
    "top_p": _number,
    "min_p": _number,
    "repetition_penalty": _number,
    "presence_penalty": _number,
    "frequency_penalty": _number,
    "top_k": _whole,
    "max_tokens": _whole,
    "seed": _whole,
    "stop": _texts,
    "stop_token_ids": _ids,
    "logit_bias": _bias,
}
