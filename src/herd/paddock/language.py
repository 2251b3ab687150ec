"""What the world can be spoken of in: one data file a language, written by hand, read once.

Thai is written with a space between words, as primers for learners print it; proper names stay in Latin letters in
every language. Both are choices for a model of a few million parameters, and both keep each sentence correct.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from herd.paddock.settings import LANGUAGES


class Language:
    """Sentences of one language. Words are asked for by their English key ("cat", "sees", "lamp", "red")."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.code: str = data["code"]
        self.name: str = data["name"]

    def word(self, key: str) -> str:
        """The noun (with its article where the language has one) or colour called `key`."""
        for table in ("animals", "objects", "colours"):
            if key in self.data[table]:
                return str(self.data[table][key])
        return key

    def sentence(self, subject: str, verb: str, thing: str) -> str:
        """`The cat sees the apple.`: verb form by the subject's gender, object in the accusative."""
        verbs = self.data["verbs_feminine" if subject in self.data["feminine_animals"] else "verbs"]
        parts = {
            "subject": self.data["animals"][subject],
            "verb": verbs[verb],
            "object": self.data["objects_accusative"][thing],
        }
        return capital(self.data["sentence"].format(**parts))

    def statement(self, attribute: str, town: str, value: str) -> str:
        return str(self.data["facts"][attribute]["statement"].format(town=town, value=self.word(value)))

    def question(self, attribute: str, town: str) -> str:
        return str(self.data["facts"][attribute]["question"].format(town=town))


def capital(text: str) -> str:
    """First letter in upper case; scripts without case stay as they are."""
    return text[:1].upper() + text[1:]


@cache
def language(code: str) -> Language:
    text = files("herd.paddock").joinpath("languages", f"{code}.json").read_text(encoding="utf-8")
    return Language(json.loads(text))


def all_languages() -> list[Language]:
    return [language(code) for code in LANGUAGES]
