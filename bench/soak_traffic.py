"""What well-behaved clients of `bench.soak` ask, and what their answers have to be.

asked = draw(rng)
problem = wrong(asked, answer)       # "" where the answer is one
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MODEL = "soak"
_WORDS = ("herd", "pass", "snow", "alp", "weather", "train", "answer", "Zug", "würde", "牧場", "गाय", "🐄", "return")
_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["answer", "n"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"enum": ["Chur", "Bern"]}},
            "required": ["town"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True)
class Asked:
    """One request: `kind` is what the report counts it under, `same` names requests whose answers are all equal."""

    kind: str
    path: str
    body: dict[str, Any]
    check: Callable[[dict[str, Any]], str] = field(default=lambda answer: "")
    same: int | None = None

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


def words(rng: random.Random, n: int) -> str:
    return " ".join(rng.choices(_WORDS, k=n))


_SYSTEMS = [words(random.Random(seed), n) for seed, n in ((1, 20), (2, 80), (3, 300), (4, 600))]


def draw(rng: random.Random) -> Asked:
    kind = rng.choices(list(_KINDS), [weight for weight, _ in _KINDS.values()])[0]
    return _KINDS[kind][1](rng)


def every_kind(rng: random.Random) -> list[Asked]:
    """One request of each kind."""
    return [make(rng) for _, make in _KINDS.values()]


def _base(rng: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {"model": MODEL, "max_tokens": rng.choice((1, 4, 16, 16, 48, 128))}
    if rng.random() < 0.5:
        found["temperature"] = rng.choice((0, 0.6, 1.0, 1.5))
    for name, value in (("top_p", 0.9), ("top_k", 20), ("min_p", 0.05), ("presence_penalty", 1), ("seed", 7)):
        if rng.random() < 0.15:
            found[name] = value
    if rng.random() < 0.1:
        found["logit_bias"] = {str(rng.randrange(256)): rng.uniform(-5, 5) for _ in range(20)}
    if rng.random() < 0.4:
        found |= {"stream": True, "stream_options": {"include_usage": True}}
    return found


def _messages(rng: random.Random) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if rng.random() < 0.7:
        found.append({"role": "system", "content": rng.choice(_SYSTEMS)})
    for _ in range(rng.choice((0, 0, 1, 3))):
        found += [{"role": "user", "content": words(rng, 12)}, {"role": "assistant", "content": words(rng, 12)}]
    return [*found, {"role": "user", "content": words(rng, rng.choice((3, 10, 40, 400)))}]


def _chat(
    rng: random.Random, kind: str = "chat", check: Callable[[dict[str, Any]], str] | None = None, **more: Any
) -> Asked:
    body = _base(rng) | {"messages": _messages(rng)} | more
    return Asked(kind, "/v1/chat/completions", body, check or (lambda answer: _whole(answer, body.get("n", 1))))


def _whole(answer: dict[str, Any], n: int) -> str:
    """Every choice has ended, in order, and usage adds up."""
    choices, usage = answer["choices"], answer["usage"]
    if [choice["index"] for choice in choices] != list(range(n)):
        return f"{len(choices)} choices instead of {n}"
    if any(choice["finish_reason"] not in ("stop", "length", "tool_calls") for choice in choices):
        return "a choice that has not ended"
    if usage["total_tokens"] != usage["prompt_tokens"] + usage["completion_tokens"]:
        return f"usage does not add up: {usage}"
    return ""


def _several(rng: random.Random) -> Asked:
    return _chat(rng, "n", n=rng.randint(2, 4), max_tokens=16)


def _stops(rng: random.Random) -> Asked:
    stops = rng.sample(["e", "er", " the", "\n\n", "ü", "herd"], 3)

    def check(answer: dict[str, Any]) -> str:
        text = answer["choices"][0]["message"]["content"]
        return _whole(answer, 1) or next((f"the answer holds {stop!r}" for stop in stops if stop in text), "")

    return _chat(rng, "stop", check, stop=stops)


def _logprobs(rng: random.Random) -> Asked:
    top = rng.choice((0, 5, 20))

    def check(answer: dict[str, Any]) -> str:
        told = answer["choices"][0]["logprobs"]["content"]
        right = all(len(one["top_logprobs"]) == top and one["logprob"] <= 0 for one in told)
        return _whole(answer, 1) or ("" if right else "log-probabilities are missing")

    return _chat(rng, "logprobs", check, logprobs=True, top_logprobs=top, max_tokens=24)


def _schema(rng: random.Random) -> Asked:
    def check(answer: dict[str, Any]) -> str:
        choice = answer["choices"][0]
        if choice["finish_reason"] == "length":
            return ""
        read = json.loads(choice["message"]["content"])
        right = set(read) == {"answer", "n"} and isinstance(read["answer"], bool) and 0 <= read["n"] <= 99
        return "" if right else f"not of the schema: {read}"

    held = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _SCHEMA, "strict": True}}
    return _chat(rng, "schema", check, response_format=held, max_tokens=64, logit_bias={})


def _tools(rng: random.Random) -> Asked:
    def check(answer: dict[str, Any]) -> str:
        choice = answer["choices"][0]
        for call in choice["message"].get("tool_calls") or []:
            if json.loads(call["function"]["arguments"]).get("town") not in ("Chur", "Bern"):
                return f"arguments not of the schema: {call}"
        called = choice["finish_reason"] == "tool_calls"
        return "" if called or choice["finish_reason"] == "length" else "no call, and one was required"

    return _chat(rng, "tools", check, tools=[_TOOL], tool_choice="required", max_tokens=96, logit_bias={})


def _offered(rng: random.Random) -> Asked:
    return _chat(rng, "tools-auto", tools=[_TOOL])


def _completion(rng: random.Random) -> Asked:
    prompts: Any = rng.choice((words(rng, 8), [words(rng, 5), words(rng, 300)], rng.choices(range(300), k=40)))
    n = 2 if isinstance(prompts[0], str) and isinstance(prompts, list) else 1
    body = _base(rng) | {"prompt": prompts}
    if rng.random() < 0.3 and not body.get("stream"):
        body |= {"logprobs": 3, "echo": True}
    return Asked("completions", "/v1/completions", body, lambda answer: _whole(answer, n))


def _response(rng: random.Random) -> Asked:
    body = {"model": MODEL, "input": words(rng, 12), "max_output_tokens": rng.choice((4, 16, 64))}
    if rng.random() < 0.5:
        body |= {"instructions": rng.choice(_SYSTEMS)}
    if rng.random() < 0.5:
        body |= {"stream": True}

    def check(answer: dict[str, Any]) -> str:
        return "" if answer["status"] in ("completed", "incomplete") and answer["output"] else "no output"

    return Asked("responses", "/v1/responses", body, check)


def _embedding(rng: random.Random) -> Asked:
    inputs = [words(rng, rng.choice((3, 30, 300))) for _ in range(rng.randint(1, 4))]

    def check(answer: dict[str, Any]) -> str:
        vectors = [one["embedding"] for one in answer["data"]]
        lengths = [sum(x * x for x in vector) for vector in vectors]
        right = len(vectors) == len(inputs) and all(abs(length - 1) < 1e-3 for length in lengths)
        return "" if right else f"vectors of length {lengths}"

    return Asked("embeddings", "/v1/embeddings", {"model": MODEL, "input": inputs}, check)


def _tokenize(rng: random.Random) -> Asked:
    def check(answer: dict[str, Any]) -> str:
        return "" if answer["count"] == len(answer["tokens"]) else "the count is wrong"

    return Asked("tokenize", "/tokenize", {"model": MODEL, "prompt": words(rng, 50)}, check)


SAME = 12


def _same(rng: random.Random) -> Asked:
    return same(rng.randrange(SAME))


def same(number: int) -> Asked:
    """One of a few requests that say the same every time: greedy, or with a seed."""
    rng = random.Random(number)
    messages = [
        {"role": "system", "content": _SYSTEMS[number % 4]},
        {"role": "user", "content": words(rng, 5 + number)},
    ]
    how = {"temperature": 0} if number % 2 else {"temperature": 0.8, "seed": number}
    body = {"model": MODEL, "messages": messages, "max_tokens": 32} | how
    return Asked("same", "/v1/chat/completions", body, lambda answer: _whole(answer, 1), number)


_KINDS: dict[str, tuple[float, Callable[[random.Random], Asked]]] = {
    "chat": (6, _chat),
    "same": (2, _same),
    "n": (1, _several),
    "stop": (1, _stops),
    "logprobs": (1, _logprobs),
    "schema": (1, _schema),
    "tools": (1, _tools),
    "tools-auto": (1, _offered),
    "completions": (2, _completion),
    "responses": (2, _response),
    "embeddings": (1, _embedding),
    "tokenize": (1, _tokenize),
}


def wrong(asked: Asked, answer: dict[str, Any]) -> str:
    """What is wrong with an answer; "" for nothing."""
    try:
        return asked.check(answer)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
