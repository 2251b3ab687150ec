"""General knowledge: facts of the world, asked in every language."""

from __future__ import annotations

import random

from herd.paddock.language import language
from herd.paddock.skills.draft import Draft, ask, choice_check
from herd.paddock.world import ATTRIBUTES, World


def fact_key(lang: str, town: str, attribute: str) -> str:
    """One key a fact and language, in whatever skill the question comes up."""
    return f"knowledge/{lang}/{town}/{attribute}"


def draw(world: World, rng: random.Random, lang: str) -> Draft:
    return ask_fact(world, lang, rng.choice(world.towns), rng.choice(ATTRIBUTES))


def ask_fact(world: World, lang: str, town: str, attribute: str, system: str = "") -> Draft:
    speech = language(lang)
    value = world.facts[town, attribute]
    return ask(
        lang,
        (fact_key(lang, town, attribute),),
        speech.question(attribute, town),
        speech.statement(attribute, town, value),
        choice_check("contains", speech, attribute, value),
        system,
    )
