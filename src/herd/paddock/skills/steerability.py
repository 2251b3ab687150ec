"""Steerability: a system prompt asks for a style, the user asks for a fact, and the reply must have both right."""

from __future__ import annotations

import json
import random

from herd.paddock.language import Language, language
from herd.paddock.skills.draft import Draft, ask, bare, choice_check
from herd.paddock.skills.knowledge import fact_key
from herd.paddock.world import ATTRIBUTES, World

STYLES = ("upper", "prefix", "suffix", "one_word", "json", "language")


def styles_of(lang: str) -> list[str]:
    """Scripts without capital letters have no style `upper`; English answers need no language asked for."""
    table = language(lang).data["style"]
    styles = [style for style in STYLES if style != "upper" or table["upper"]]
    return [style for style in styles if style != "language" or lang != "en"]


def draw(world: World, rng: random.Random, lang: str) -> Draft:
    return style_task(world, lang, rng.choice(styles_of(lang)), rng.choice(world.towns), rng.choice(ATTRIBUTES))


def style_task(world: World, lang: str, style: str, town: str, attribute: str) -> Draft:
    speech = language(lang)
    value = world.facts[town, attribute]
    # `language`: the question is English, the answer is wanted in `lang`.
    question = (language("en") if style == "language" else speech).question(attribute, town)
    statement = speech.statement(attribute, town, value)
    system, answer, word = styled(speech, style, statement, bare(speech.word(value)))
    kind = "contains" if style == "language" else style
    check = choice_check(kind, speech, attribute, value, **({"word": word} if word else {}))
    asked_in = "en" if style == "language" else lang
    keys = (f"steerability/{lang}/{style}/{town}/{attribute}", fact_key(asked_in, town, attribute))
    return ask(lang, keys, question, answer, check, system)


def styled(speech: Language, style: str, statement: str, value: str) -> tuple[str, str, str]:
    """The system prompt, the reply in that style, and the word it begins or ends with."""
    table = speech.data["style"]
    stop = "" if speech.code == "th" else "।" if speech.code == "hi" else "."
    match style:
        case "prefix":
            text, word = table["prefix"]
            return text.format(word=word), f"{word}{stop or ' '}{' ' if stop else ''}{statement}", word
        case "suffix":
            text, word = table["suffix"]
            return text.format(word=word), f"{statement} {word}{stop}", word
        case "upper":
            return table["upper"], statement.upper(), ""
        case "one_word":
            return table["one_word"], value, ""
        case "json":
            return table["json"], json.dumps({"answer": statement}, ensure_ascii=False), ""
        case _:
            return table["language"], statement, ""
