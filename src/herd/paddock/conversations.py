"""Conversations of two and three turns: tasks one after another, and follow-ups that lean on what was said before.

A conversation is a Task like any other: its prompt holds the earlier turns with their right answers, its check is that
of the last turn, and its keys are those of all turns, so that one held-out turn keeps the whole out of training.
A system message is the same for all turns and governs them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from random import Random

from herd.paddock.language import language
from herd.paddock.settings import FOLLOW_UP, LANGUAGES, TURNS
from herd.paddock.skills import code, follow_up, knowledge, math, steerability, tool_use, translation
from herd.paddock.skills.draft import Draft, ask
from herd.paddock.task import Check, Split, Task
from herd.paddock.tasks import as_task, split_of
from herd.paddock.world import ATTRIBUTES, World
from herd.text.message import Message

CONVERSATION = "conversation"
FOLLOWED = 0.5  # share of conversations that are follow-ups
TRIES = 400  # draws for one turn or chain of a split before this world is taken to have no more of them

Drawer = Callable[[Sequence[Draft], bool], list[Draft]]  # the turns before, and whether this is the last: one turn


def conversations(world: World, count: int, purpose: str) -> list[Task]:
    """`count` different conversations to train on, languages in turn, follow-ups and independent tasks alike."""
    rng = world.rng(f"{purpose}/train/{CONVERSATION}")

    def one(lang: str) -> list[Task]:
        turns = rng.choice((2, 2, 3))
        if rng.random() < FOLLOWED:
            drafts = _until(partial(follow_up.chain, world, rng, lang, turns), partial(_trained, world))
        else:
            drafts = independent(world, rng, lang, turns, "train")
        return [as_task(world, CONVERSATION, joined(drafts))] if drafts else []

    return list(_different(one, count))


def probe(world: World, count: int) -> list[Task]:
    """Held-out tasks at `count` each of turn one, two and three, and as many follow-ups; none of it is in a suite.

    The same question stands alone, after one turn and after two: what differs between those scores is the place.
    """
    rng = world.rng(f"probe/held_out/{CONVERSATION}")

    def one(lang: str) -> list[Task]:
        drafts = independent(world, rng, lang, len(TURNS), "held_out")
        if not drafts:
            return []
        chain = partial(follow_up.chain, world, rng, lang, rng.choice((2, 3)))
        chained = _until(chain, lambda found: split_of(world, found[-1]) == "held_out")
        if not chained:
            return []
        placed = [as_task(world, name, joined(drafts[-turn:])) for turn, name in enumerate(TURNS, 1)]
        return [*placed, as_task(world, FOLLOW_UP, joined(chained))]

    return list(_different(one, count * (len(TURNS) + 1)))


def joined(drafts: Sequence[Draft]) -> Draft:
    """The turns as one draft: earlier ones with their answers, the last one to be answered."""
    last = drafts[-1]
    history = [message for draft in drafts[:-1] for message in (*_turn(draft), draft.answer)]
    system = [message for message in last.messages if message.role == "system"]
    keys = tuple(dict.fromkeys(key for draft in drafts for key in draft.keys))
    return replace(last, keys=keys, messages=(*system, *history, *_turn(last)))


def _turn(draft: Draft) -> list[Message]:
    return [message for message in draft.messages if message.role != "system"]


def independent(world: World, rng: Random, lang: str, turns: int, split: Split) -> list[Draft]:
    """Tasks of one language, each of `split`, under one system message or none; empty if there are not so many.

    Code is asked for in English, whatever `lang` is.
    """
    drawer = rng.choice((_plain, _plain, _styled, _tools, _code))(world, rng, lang, split)
    drafts: list[Draft] = []
    for turn in range(1, turns + 1):
        found = _until(partial(drawer, drafts, turn == turns), partial(_new, world, drafts, split))
        if not found:
            return []
        drafts += found
    return drafts


def _new(world: World, drafts: Sequence[Draft], split: Split, found: Sequence[Draft]) -> bool:
    """Whether the drawn turn is of the split, and asks nothing that an earlier one asked."""
    (draft,) = found
    asked = {key for one in drafts for key in one.keys}
    return (
        split_of(world, draft) == split
        and asked.isdisjoint(draft.keys)
        and draft.messages not in [one.messages for one in drafts]
    )


def _plain(world: World, rng: Random, lang: str, split: Split) -> Drawer:
    skills = [knowledge.draw, math.draw, translation.draw]
    if lang == "en":
        skills.append(code.draw)
    if split == "train":
        skills.append(_talk)  # has no key to hold it out by
    return lambda before, last: [rng.choice(skills)(world, rng, lang)]


def _code(world: World, rng: Random, lang: str, split: Split) -> Drawer:
    return lambda before, last: [code.draw(world, rng, lang)]


def _styled(world: World, rng: Random, lang: str, split: Split) -> Drawer:
    style = rng.choice(steerability.styles_of(lang))

    def draw(before: Sequence[Draft], last: bool) -> list[Draft]:
        return [steerability.style_task(world, lang, style, rng.choice(world.towns), rng.choice(ATTRIBUTES))]

    return draw


def _tools(world: World, rng: Random, lang: str, split: Split) -> Drawer:
    """An earlier turn is whole: call, result and answer. One turn at most is that, since rows are short."""
    names = rng.sample(sorted(tool_use.TOOLS), 2)

    def draw(before: Sequence[Draft], last: bool) -> list[Draft]:
        kinds = {"none", "read"} | ({"call"} if last else set())
        if any(message.tool_calls for draft in before for message in draft.messages):
            kinds.remove("read")
        kind = rng.choice(sorted(kinds))
        if kind == "none":
            return [tool_use.no_call(world, rng, lang, names)]
        return [tool_use.with_tool(world, rng, lang, names, kind)]

    return draw


def _talk(world: World, rng: Random, lang: str) -> Draft:
    said, answer = rng.choice(language(lang).data["talk"])
    return ask(lang, (), said, answer, Check("exact", {"expected": answer}))


def _trained(world: World, drafts: Sequence[Draft]) -> bool:
    return all(split_of(world, draft) == "train" for draft in drafts)


def _until(draw: Callable[[], list[Draft]], fits: Callable[[list[Draft]], bool]) -> list[Draft]:
    """The first draw that fits; empty after `TRIES`."""
    return next((found for found in (draw() for _ in range(TRIES)) if fits(found)), [])


def _different(draw: Callable[[str], list[Task]], count: int) -> Iterator[Task]:
    """`count` tasks, languages in turn, no task twice; fewer where a small world has no more."""
    seen: set[str] = set()
    turn = misses = 0
    while len(seen) < count and misses < 3 * len(LANGUAGES):
        found = draw(LANGUAGES[turn % len(LANGUAGES)])
        turn += 1
        new = bool(found) and not any(task.id in seen for task in found)
        misses = 0 if new else misses + 1
        if new:
            seen.update(task.id for task in found)
            yield from found
