"""Long documents: a register of many towns with numbers that are in no other place, and one question about it."""

from __future__ import annotations

import random

from herd.paddock.language import language
from herd.paddock.skills.draft import Draft, ask
from herd.paddock.skills.translation import draw_triple, triple_key
from herd.paddock.task import Check
from herd.paddock.world import World

ENTRIES = 5
FILLERS = 9


def draw(world: World, rng: random.Random, lang: str) -> Draft:
    text, entries = register(world, rng, lang)
    town, number = rng.choice(sorted(entries.items()))
    speech = language(lang)
    statement, question = speech.data["houses"]
    return ask(
        lang,
        (f"long_context/{lang}/{town}/{text}",),
        f"{text}\n\n{question.format(town=town)}",
        statement.format(town=town, n=number),
        Check("number", {"expected": number}),
    )


def register(world: World, rng: random.Random, lang: str, fillers: int = FILLERS) -> tuple[str, dict[str, int]]:
    """A page with `ENTRIES` towns among `fillers` other sentences, and the number of each town."""
    speech = language(lang)
    towns = rng.sample(world.towns, min(ENTRIES, len(world.towns)))
    numbers = rng.sample(range(2, 100), len(towns))
    statement = speech.data["houses"][0]
    lines = [statement.format(town=town, n=number) for town, number in zip(towns, numbers, strict=True)]
    while len(lines) < len(towns) + fillers:
        triple = draw_triple(rng)
        if not world.held_out(triple_key(triple)):
            lines.append(speech.sentence(*triple))
    rng.shuffle(lines)
    return " ".join(lines), dict(zip(towns, numbers, strict=True))
