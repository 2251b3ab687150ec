"""Tasks of all capabilities, split into what training may see and what it never sees."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from random import Random

from herd.errors import SettingError
from herd.paddock.settings import CAPABILITIES, LANGUAGES
from herd.paddock.skills import code, knowledge, long_context, math, steerability, tool_use, translation
from herd.paddock.skills.draft import Draft
from herd.paddock.task import Split, Task
from herd.paddock.world import World

DRAWERS: dict[str, Callable[[World, Random, str], Draft]] = {
    "knowledge": knowledge.draw,
    "steerability": steerability.draw,
    "math": math.draw,
    "tool_use": tool_use.draw,
    "translation": translation.draw,
    "code": code.draw,
    "long_context": long_context.draw,
}
assert tuple(DRAWERS) == CAPABILITIES


def draw_task(world: World, capability: str, lang: str, rng: Random) -> Task:
    return as_task(world, capability, DRAWERS[capability](world, rng, lang))


def split_of(world: World, draft: Draft) -> Split:
    return "held_out" if any(map(world.held_out, draft.keys)) else "train"


def as_task(world: World, capability: str, draft: Draft) -> Task:
    """The draft in its split, under an id made of what it asks."""
    text = "\n".join(f"{m.role}: {m.content} {m.tool_calls}" for m in draft.messages)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Task(
        id=f"{capability}-{draft.lang}-{digest}",
        capability=capability,
        lang=draft.lang,
        messages=draft.messages,
        answer=draft.answer,
        check=draft.check,
        split=split_of(world, draft),
        keys=draft.keys,
    )


def tasks(world: World, split: Split, per_capability: int, purpose: str) -> list[Task]:
    """`per_capability` different tasks of each capability, languages in turn, capabilities interleaved."""
    columns = [list(_some(world, capability, split, per_capability, purpose)) for capability in CAPABILITIES]
    return [task for row in zip(*columns, strict=False) for task in row] + _uneven(columns)


def _uneven(columns: list[list[Task]]) -> list[Task]:
    """What a small world leaves over when one capability has fewer different tasks than another."""
    shortest = min(map(len, columns))
    return [task for column in columns for task in column[shortest:]]


def _some(world: World, capability: str, split: Split, count: int, purpose: str) -> Iterator[Task]:
    """Different tasks of one capability; stops early when the world has no more of them."""
    rng = world.rng(f"{purpose}/{split}/{capability}")
    seen: set[str] = set()
    misses, turn = 0, 0
    while len(seen) < count and misses < 400 * len(LANGUAGES):
        task = draw_task(world, capability, LANGUAGES[turn % len(LANGUAGES)], rng)
        if task.split == split and task.id not in seen:
            seen.add(task.id)
            misses = 0
            turn += 1
            yield task
        else:
            misses += 1
            turn += misses % 50 == 0  # this language may have no more; let the next one have its turn
    if not seen:
        raise SettingError(
            f"the world is too small for a {split} task of {capability}", mend="raise world.towns or world.held_out"
        )
