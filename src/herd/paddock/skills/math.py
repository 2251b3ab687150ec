"""Mathematics: sums and word problems of one or two steps, answered with the steps worked."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from herd.paddock.language import language
from herd.paddock.skills.draft import Draft, ask
from herd.paddock.task import Check
from herd.paddock.world import PEOPLE, World

THINGS = ("stones", "books", "keys")


def draw(world: World, rng: random.Random, lang: str) -> Draft:
    kind = rng.choice(("direct", "gain", "loss", "gain_loss"))
    if kind == "direct":
        return direct(world, rng, lang)
    return problem(world, rng, lang, kind)


def direct(world: World, rng: random.Random, lang: str) -> Draft:
    return ask_sum(lang, *operands(world, rng))


def ask_sum(lang: str, a: int, sign: str, b: int) -> Draft:
    total = a + b if sign == "+" else a - b
    table = language(lang).data["math"]
    return ask(
        lang,
        (f"math/{lang}/{a}{sign}{b}",),
        table["direct"].format(sum=f"{a} {sign} {b}"),
        f"{a} {sign} {b} = {total}. " + table["answer"].format(n=total),
        Check("number", {"expected": total}),
    )


def operands(world: World, rng: random.Random) -> tuple[int, str, int]:
    top = world.settings.largest_operand
    a, b = rng.randint(1, top), rng.randint(1, top)
    if rng.random() < 0.5:
        return a, "+", b
    return max(a, b), "-", min(a, b)


def problem(world: World, rng: random.Random, lang: str, kind: str) -> Draft:
    table = language(lang).data["math"]
    name, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    a, b, c, steps, total = _numbers(world, rng, kind)
    words: Mapping[str, Any] = {"name": name, "a": a, "b": b, "c": c, **table["things"][thing]}
    parts = ["has", "loses" if kind == "loss" else "gains", *(["then_loses"] if kind == "gain_loss" else []), "ask"]
    text = "".join(table[part] for part in parts).format(**words)
    answer = ". ".join(steps) + ". " + table["answer"].format(n=total)
    key = f"math/{lang}/{name}/{thing}/{kind}/{a}/{b}/{c}"
    return ask(lang, (key,), text, answer, Check("number", {"expected": total}))


def _numbers(world: World, rng: random.Random, kind: str) -> tuple[int, int, int, list[str], int]:
    top = world.settings.largest_operand
    a, b = rng.randint(2, top), rng.randint(2, top)
    if kind == "loss":
        a, b = max(a, b), min(a, b)
        return a, b, 0, [f"{a} - {b} = {a - b}"], a - b
    if kind == "gain":
        return a, b, 0, [f"{a} + {b} = {a + b}"], a + b
    c = rng.randint(1, top)
    c = min(c, a + b)
    return a, b, c, [f"{a} + {b} = {a + b}", f"{a + b} - {c} = {a + b - c}"], a + b - c
