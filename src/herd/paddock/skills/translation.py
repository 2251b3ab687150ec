"""Multilingual translation: sentences of a small grammar between English and each of the other languages."""

from __future__ import annotations

import random

from herd.paddock.language import language
from herd.paddock.skills.draft import Draft, ask
from herd.paddock.task import Check
from herd.paddock.world import ANIMALS, OBJECTS, VERBS, World

Triple = tuple[str, str, str]


def draw(world: World, rng: random.Random, lang: str) -> Draft:
    """`lang` is the side that is not English; for English itself any other language is the source."""
    triple = draw_triple(rng)
    if lang == "en":
        other = rng.choice(("de", "fr", "it", "pt", "hi", "es", "th"))
        return translate(triple, other, "en", "en")
    return translate(triple, "en", lang, lang)


def draw_triple(rng: random.Random) -> Triple:
    return rng.choice(ANIMALS), rng.choice(VERBS), rng.choice(OBJECTS)


def triple_key(triple: Triple) -> str:
    """One key a triple, whatever the languages: a held-out sentence is unseen in all of them."""
    return "translation/" + "/".join(triple)


def translate(triple: Triple, source: str, target: str, lang: str) -> Draft:
    question = f"Translate into {language(target).name}: {language(source).sentence(*triple)}"
    answer = language(target).sentence(*triple)
    return ask(lang, (triple_key(triple),), question, answer, Check("exact", {"expected": answer}))
