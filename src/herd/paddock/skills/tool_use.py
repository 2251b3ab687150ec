"""Tool use: call the right tool with the right parameters, read its result, and leave tools alone when not needed."""

from __future__ import annotations

import json
import random

from herd.paddock.language import language
from herd.paddock.skills.draft import Draft
from herd.paddock.skills.knowledge import ask_fact
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
        return no_call(world, rng, lang, names)
    return with_tool(world, rng, lang, names, kind)


def with_tool(world: World, rng: random.Random, lang: str, names: list[str], kind: str) -> Draft:
    """A question for one of the tools `names`: "call" ends with the call, "read" with what its result says."""
    name = rng.choice(names)
    return asked(lang, names, name, named(world, rng, lang, name), rng.randint(1, 24), kind)


def named(world: World, rng: random.Random, lang: str, tool: str) -> str:
    """A value that `tool` can be asked about, in the words of `lang`."""
    return language(lang).word(rng.choice(OBJECTS)) if tool == "price" else rng.choice(world.towns)


def asked(lang: str, names: list[str], name: str, value: str, number: int, kind: str, question: str = "") -> Draft:
    """The tool `name` is asked about `value` (in the tool's own words unless `question` is given) and says `number`."""
    texts = language(lang).data["tools"][name]
    question = question or texts[0].format(town=value, thing=value)
    prompt = (Message("system", system_prompt(names)), Message("user", question))
    call = ToolCall(name, {TOOLS[name]: value})
    keys = (f"tool_use/{lang}/{name}/{value}",)
    if kind == "call":
        check = Check("call", {"name": call.name, "parameters": dict(call.parameters)})
        return Draft(lang, keys, prompt, Message("assistant", "", (call,)), check)
    result = Message("ipython", json.dumps({name: number}))
    answer = Message("assistant", texts[1].format(n=number, town=value))
    history = (*prompt, Message("assistant", "", (call,)), result)
    return Draft(lang, keys, history, answer, Check("number", {"expected": number}))


def no_call(world: World, rng: random.Random, lang: str, names: list[str]) -> Draft:
    """A fact of the world is asked, which none of the tools `names` knows."""
    return ask_fact(world, lang, rng.choice(world.towns), rng.choice(ATTRIBUTES), system_prompt(names))
