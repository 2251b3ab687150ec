"""Tool use: call the right tool with the right parameters, read its result, and leave tools alone when not needed."""

from __future__ import annotations

import json
import random

from herd.paddock.language import language
from herd.paddock.skills.draft import Draft, choice_check
from herd.paddock.skills.knowledge import fact_key
from herd.paddock.task import Check
from herd.paddock.world import ATTRIBUTES, OBJECTS, World
from herd.text.message import Message, ToolCall

TOOLS = {"weather": "town", "clock": "town", "price": "thing"}


def system_prompt(names: list[str]) -> str:
    """Environment line and tool definitions as JSON, one a line (prompt format page: zero-shot tool calling)."""
    lines = [json.dumps({"name": name, "parameters": {TOOLS[name]: "string"}}) for name in names]
    return "Environment: ipython\n" + "\n".join(lines)


def draw(world: World, rng: random.Random, lang: str) -> Draft:
    kind = rng.choice(("call", "call", "read", "none"))
    names = rng.sample(sorted(TOOLS), 2)
    if kind == "none":
        return _no_call(world, rng, lang, names)
    return _with_tool(world, rng, lang, names, kind)


def _with_tool(world: World, rng: random.Random, lang: str, names: list[str], kind: str) -> Draft:
    speech = language(lang)
    name = rng.choice(names)
    value = speech.word(rng.choice(OBJECTS)) if name == "price" else rng.choice(world.towns)
    texts = speech.data["tools"][name]
    number = rng.randint(1, 24)
    prompt = (Message("system", system_prompt(names)), Message("user", texts[0].format(town=value, thing=value)))
    call = ToolCall(name, {TOOLS[name]: value})
    keys = (f"tool_use/{lang}/{name}/{value}",)
    if kind == "call":
        check = Check("call", {"name": call.name, "parameters": dict(call.parameters)})
        return Draft(lang, keys, prompt, Message("assistant", "", (call,)), check)
    result = Message("ipython", json.dumps({name: number}))
    answer = Message("assistant", texts[1].format(n=number, town=value))
    history = (*prompt, Message("assistant", "", (call,)), result)
    return Draft(lang, keys, history, answer, Check("number", {"expected": number}))


def _no_call(world: World, rng: random.Random, lang: str, names: list[str]) -> Draft:
    speech = language(lang)
    town, attribute = rng.choice(world.towns), rng.choice(ATTRIBUTES)
    value = world.facts[town, attribute]
    prompt = (Message("system", system_prompt(names)), Message("user", speech.question(attribute, town)))
    answer = Message("assistant", speech.statement(attribute, town, value))
    check = choice_check("contains", speech, attribute, value)
    return Draft(lang, (fact_key(lang, town, attribute),), prompt, answer, check)
