"""Code: one-line Python functions from a sentence, verified by running them on test cases (interpreter.py)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from herd.paddock.interpreter import run_function
from herd.paddock.skills.draft import Draft, ask
from herd.paddock.task import Check
from herd.paddock.world import World

NUMBER_OPS = (
    ("adds {n} to x", "x + {n}"),
    ("subtracts {n} from x", "x - {n}"),
    ("multiplies x by {n}", "x * {n}"),
    ("gives the remainder of x by {n}", "x % {n}"),
    ("says whether x is greater than {n}", "x > {n}"),
    ("says whether x is less than {n}", "x < {n}"),
)
LIST_OPS = (
    ("gives the largest of x", "max(x)"),
    ("gives the smallest of x", "min(x)"),
    ("gives the length of x", "len(x)"),
    ("gives the sum of x", "sum(x)"),
    ("sorts x", "sorted(x)"),
    ("gives the first of x", "x[0]"),
    ("gives the last of x", "x[-1]"),
)
NUMBERS = [*range(11), 25]  # both sides of every bound that a comparison may have
NAMES = ("f", "g", "h", "run", "make", "calc", "step", "apply")


def draw(world: World, rng: random.Random, lang: str) -> Draft:
    """`lang` is not looked at: code is asked for in English and counted as `en`."""
    name = rng.choice(NAMES)
    if rng.random() < 0.3:
        return _list_task(rng, name)
    if rng.random() < 0.5:
        words, body = _number_op(rng, "x", rng.randrange(len(NUMBER_OPS)))
        return _task(name, [words], body, NUMBERS)
    first, inner = _number_op(rng, "x", rng.randrange(3))
    second, outer = _number_op(rng, f"({inner})", rng.randrange(3))
    return _task(name, [first, f"then {_about_it(second)}"], outer, [3, 10, 25])  # a line is known by two points


def _about_it(words: str) -> str:
    """`adds 3 to x` said of a result: `adds 3 to it`."""
    return " ".join("it" if word == "x" else word for word in words.split())


def _number_op(rng: random.Random, operand: str, which: int) -> tuple[str, str]:
    words, body = NUMBER_OPS[which]
    n = rng.randint(2, 9)
    return words.format(n=n), body.format(n=n).replace("x", operand, 1)


def _list_task(rng: random.Random, name: str) -> Draft:
    words, body = rng.choice(LIST_OPS)
    inputs: list[object] = [[4, 9, 2], [7], [1, 1, 8, 3]]
    if body == "sorted(x)" or rng.random() < 0.3:
        return _task(name, [words], body, inputs)
    n = rng.randint(2, 9)
    return _task(name, [words, f"plus {n}"], f"{body} + {n}", inputs)


def _task(name: str, steps: list[str], body: str, inputs: Sequence[object]) -> Draft:
    """A held-out first step holds out every longer task that begins with it: its words would be shown there."""
    source = f"def {name}(x):\n    return {body}"
    cases = [[[value], run_function(source, name, [value])] for value in inputs]
    words = (" " if steps[-1].startswith("plus") else ", ").join(steps)
    keys = tuple(dict.fromkeys((f"code/{steps[0]}", f"code/{words}")))
    question = f"Write a Python function {name} that {words}."
    return ask("en", keys, question, source, Check("python", {"name": name, "cases": cases}))
