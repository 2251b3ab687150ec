"""Follow-ups: turns that say nothing alone, because what they are about stands in the turns before them.

    What is the colour of Brenn?  The colour of Brenn is red.  And the animal?  ...  And Solva?  ...  Now in German.

`chain` gives the turns of one conversation as drafts, each with the answer and the check of its own turn. Their
system message, where there is one, is the same in all of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from herd.paddock.language import language
from herd.paddock.settings import LANGUAGES
from herd.paddock.skills import code, long_context, math, tool_use
from herd.paddock.skills.draft import Draft
from herd.paddock.skills.knowledge import ask_fact
from herd.paddock.skills.steerability import style_task, styles_of
from herd.paddock.task import Check
from herd.paddock.world import ATTRIBUTES, World
from herd.text.message import Message

T = TypeVar("T")
PAGE_FILLERS = 4  # sentences of a page beside those asked about: page and turns fit a row of the smallest recipe
STYLED = 0.3  # share of the facts that are asked under a system message


def chain(world: World, rng: random.Random, lang: str, turns: int) -> list[Draft]:
    """`turns` turns, of which all but the first lean on those before; answers are in `lang`, code is in English."""
    return rng.choice((facts, facts, translated, sums, tools, page, functions))(world, rng, lang, turns)


def facts(world: World, rng: random.Random, lang: str, turns: int) -> list[Draft]:
    """Another attribute of the same town, the same attribute of another town, or the same once more."""
    style = rng.choice(styles_of(lang)) if rng.random() < STYLED else ""
    return _facts(world, rng, lang, turns, style)[0]


def _facts(world: World, rng: random.Random, lang: str, turns: int, style: str) -> tuple[list[Draft], str, str]:
    """The turns, and the town and attribute that the last of them is about."""
    asked_in = "en" if style == "language" else lang  # the system message asks for answers in another language
    town, attribute = rng.choice(world.towns), rng.choice(ATTRIBUTES)
    drafts = [_fact(world, lang, style, town, attribute)]
    for _ in range(turns - 1):
        move = rng.choice(("attribute", "attribute", "town", "town", "again"))
        if move == "attribute":
            attribute = _other(rng, ATTRIBUTES, attribute)
            question = _and(asked_in, language(asked_in).data["follow_up"]["attributes"][attribute])
        elif move == "town":
            town = _other(rng, world.towns, town)
            question = _and(asked_in, town)
        else:
            question = language(asked_in).data["follow_up"]["again"]
        drafts.append(_asked_as(question, _fact(world, lang, style, town, attribute)))
    return drafts, town, attribute


def _fact(world: World, lang: str, style: str, town: str, attribute: str) -> Draft:
    return style_task(world, lang, style, town, attribute) if style else ask_fact(world, lang, town, attribute)


def translated(world: World, rng: random.Random, lang: str, turns: int) -> list[Draft]:
    """A fact in one language, at last the same in `lang`; one of the two is English."""
    source = "en" if lang != "en" else rng.choice([code for code in LANGUAGES if code != "en"])
    drafts, town, attribute = _facts(world, rng, source, turns - 1, "")
    question = language(source).data["follow_up"]["now"].format(language=language(lang).name)
    return [*drafts, _asked_as(question, ask_fact(world, lang, town, attribute))]


def sums(world: World, rng: random.Random, lang: str, turns: int) -> list[Draft]:
    """A sum, and what is added to its result or taken from it."""
    drafts = [math.direct(world, rng, lang)]
    for _ in range(turns - 1):
        before = drafts[-1].check.spec["expected"]
        number = rng.randint(1, world.settings.largest_operand)
        sign = rng.choice("+-") if number <= before else "+"
        drafts.append(_asked_as(_and(lang, f"{sign} {number}"), math.ask_sum(lang, before, sign, number)))
    return drafts


def tools(world: World, rng: random.Random, lang: str, turns: int) -> list[Draft]:
    """A tool's result told once more without another call, or the same tool asked about something else.

    Two whole calls make a long prompt: a third turn ends with the call.
    """
    names = rng.sample(sorted(tool_use.TOOLS), 2)
    name = rng.choice(names)
    value = tool_use.named(world, rng, lang, name)
    drafts = [tool_use.asked(lang, names, name, value, rng.randint(1, 24), "read")]
    if turns > 2 or rng.random() < 0.5:
        drafts.append(_told_again(drafts[0], language(lang).data["follow_up"]["again"]))
    if len(drafts) < turns:
        other = _other(rng, [tool_use.named(world, rng, lang, name) for _ in range(8)], value)
        kind = rng.choice(("call", "read")) if turns == 2 else "call"
        drafts.append(tool_use.asked(lang, names, name, other, rng.randint(1, 24), kind, _and(lang, other)))
    return drafts


def page(world: World, rng: random.Random, lang: str, turns: int) -> list[Draft]:
    """A short page, and what it says of one town after another."""
    text, entries = long_context.register(world, rng, lang, turns, PAGE_FILLERS)
    drafts: list[Draft] = []
    for town, number in rng.sample(sorted(entries.items()), len(entries)):
        draft = long_context.ask_page(lang, text, town, number)
        drafts.append(_asked_as(_and(lang, town), draft) if drafts else draft)
    return drafts


def functions(world: World, rng: random.Random, lang: str, turns: int) -> list[Draft]:
    """A Python function, and the same one under another name."""
    drafts = [code.draw(world, rng, lang)]
    for _ in range(turns - 1):
        before = drafts[-1]
        name = _other(rng, code.NAMES, before.check.spec["name"])
        renamed = before.answer.content.replace(f"def {before.check.spec['name']}(", f"def {name}(")
        asked = _asked_as(f"Now call it {name}.", before)
        check = Check("python", {**before.check.spec, "name": name})
        drafts.append(replace(asked, answer=Message("assistant", renamed), check=check))
    return drafts


def _asked_as(question: str, draft: Draft) -> Draft:
    """The same task in other words of the user."""
    told = tuple(replace(one, content=question) if one.role == "user" else one for one in draft.messages)
    return replace(draft, messages=told)


def _told_again(draft: Draft, question: str) -> Draft:
    """What the draft's answer said, asked for without its tool."""
    system = tuple(one for one in draft.messages if one.role == "system")
    return replace(draft, messages=(*system, Message("user", question)))


def _and(lang: str, thing: str) -> str:
    return str(language(lang).data["follow_up"]["and"].format(thing=thing))


def _other(rng: random.Random, options: Sequence[T], known: T) -> T:
    """One of the options besides the known one."""
    return rng.choice([one for one in options if one != known] or list(options))
