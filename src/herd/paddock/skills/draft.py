"""A question before it has a place in a split."""

from __future__ import annotations

import re
from dataclasses import dataclass

from herd.paddock.language import Language
from herd.paddock.task import Check
from herd.paddock.world import VALUES
from herd.text.message import Message


@dataclass(frozen=True)
class Draft:
    """`keys` say what is asked, apart from wording that every question of the kind shares.

    A question is held out when any of its keys is: a style asked of a held-out fact is held out too.
    """

    lang: str
    keys: tuple[str, ...]
    messages: tuple[Message, ...]
    answer: Message
    check: Check


def ask(lang: str, keys: tuple[str, ...], question: str, answer: str, check: Check, system: str = "") -> Draft:
    messages: tuple[Message, ...] = (Message("user", question),)
    if system:
        messages = (Message("system", system), *messages)
    return Draft(lang, keys, messages, Message("assistant", answer), check)


_ARTICLE = re.compile(r"^(?:the|der|die|das|den|le|la|il|o|a|el) |^l'", re.IGNORECASE)


def bare(words: str) -> str:
    """A noun without its article."""
    return _ARTICLE.sub("", words)


def choice_check(kind: str, speech: Language, attribute: str, value: str, **more: str) -> Check:
    """Right value there, no other value of the attribute named."""
    others = [bare(speech.word(other)) for other in VALUES[attribute] if other != value]
    return Check(kind, {"expected": bare(speech.word(value)), "others": others, **more})
