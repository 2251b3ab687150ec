"""Long documents: a number that stands in no other place, hidden in a long page, and a question about it."""

from __future__ import annotations

import random

from herd.paddock.language import language
from herd.paddock.skills.draft import Draft, ask
from herd.paddock.skills.translation import draw_triple, triple_key
from herd.paddock.task import Check
from herd.paddock.world import World

ENTRIES = 1  # a single needle, as in the paper's section 5.2.6
FILLERS = 14


def draw(world: World, rng: random.Random, lang: str) -> Draft:
    text, entries = register(world, rng, lang)
    town, number = rng.choice(sorted(entries.items()))
    return ask_page(lang, text, town, number)


def ask_page(lang: str, text: str, town: str, number: int) -> Draft:
    """The page `text`, and what it says of `town`."""
    statement, question = language(lang).data["houses"]
    return ask(
        lang,
        (f"long_context/{lang}/{town}/{text}",),
        f"{text}\n\n{question.format(town=town)}",
        statement.format(town=town, n=number),
        Check("number", {"expected": number}),
    )


def register(
    world: World, rng: random.Random, lang: str, entries: int = ENTRIES, fillers: int = FILLERS
) -> tuple[str, dict[str, int]]:
    """A page of `fillers` sentences with `entries` towns' numbers among them, and the number of each town."""
    speech = language(lang)
    towns = rng.sample(world.towns, min(entries, len(world.towns)))
    numbers = rng.sample(range(11, 60), len(towns))
    statement = speech.data["houses"][0]
    lines = [statement.format(town=town, n=number) for town, number in zip(towns, numbers, strict=True)]
    while len(lines) < len(towns) + fillers:
        triple = draw_triple(rng)
        if not world.held_out(triple_key(triple)):
            lines.append(speech.sentence(*triple))
    rng.shuffle(lines)
    return " ".join(lines), dict(zip(towns, numbers, strict=True))
