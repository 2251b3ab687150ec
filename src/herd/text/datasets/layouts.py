"""What the rows of a shared dataset look like: each layout is recognised by the columns it needs.

The order is the order of preference: a row that fits two is read as the first. Where the same columns mean two things
(`chosen` as a reply or as a whole conversation) the first row's values decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from herd.text.datasets.read import Row
from herd.text.datasets.turns import Pair, conversation, marked, pair_of, prompt_of, reply_of, text, with_system
from herd.text.message import Message

T = TypeVar("T")
_PROMPTS = ("prompt", "question", "query", "instruction", "input")
_REPLIES = ("completion", "response", "answer", "output")


@dataclass(frozen=True)
class Layout(Generic[T]):
    """`fits` looks at one row, `read` makes a record of it; `example` is what an error shows."""

    name: str
    example: str
    fits: Callable[[Row], bool]
    read: Callable[[Row], T]


def _has(*columns: str) -> Callable[[Row], bool]:
    return lambda row: all(row.get(column) is not None for column in columns)


def _first(row: Mapping[str, Any], columns: tuple[str, ...]) -> str | None:
    return next((column for column in columns if row.get(column) is not None), None)


def _is_list(row: Row, column: str) -> bool:
    value = row.get(column)
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _turns_with(key: str) -> Callable[[Row], bool]:
    """Whether a column of turns is there whose first one has `key`."""
    columns = ("messages", "conversations", "conversation")
    return lambda row: any(_is_list(row, column) and key in row[column][0] for column in columns)


# Dialogues


def _messages(row: Row) -> list[Message]:
    column = next(column for column in ("messages", "conversations", "conversation") if _is_list(row, column))
    return conversation(row[column], system=row.get("system"), tools=row.get("tools"))


def _alpaca(row: Row) -> list[Message]:
    task = text(row["instruction"], "instruction")
    context = next((row[name] for name in ("input", "context") if row.get(name)), "")
    answer = _first(row, ("output", "response"))
    assert answer is not None
    history: list[Message] = []
    for asked, said in row.get("history") or []:
        history += [Message("user", text(asked, "history")), Message("assistant", text(said, "history"))]
    asked = f"{task}\n\n{text(context, 'input')}" if context else task
    turns = [*history, Message("user", asked), Message("assistant", text(row[answer], answer))]
    return with_system(row.get("system"), turns)


def _prompted(row: Row) -> list[Message]:
    prompt, reply = _first(row, _PROMPTS), _first(row, _REPLIES)
    assert prompt is not None
    assert reply is not None
    return with_system(row.get("system"), [*prompt_of(row[prompt], prompt), reply_of(row[reply], reply)])


DIALOGUES: tuple[Layout[list[Message]], ...] = (
    Layout(
        "messages",
        '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}',
        _turns_with("role"),
        _messages,
    ),
    Layout(
        "sharegpt",
        '{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}',
        _turns_with("from"),
        _messages,
    ),
    Layout(
        "alpaca",
        '{"instruction": "...", "input": "...", "output": "..."}',
        lambda row: _has("instruction")(row) and _first(row, ("output", "response")) is not None,
        _alpaca,
    ),
    Layout(
        "prompt and completion",
        '{"prompt": "...", "completion": "..."}  (also question/answer, query/response, messages on either side)',
        lambda row: _first(row, _PROMPTS) is not None and _first(row, _REPLIES) is not None,
        _prompted,
    ),
)


# Prompts alone, for a teacher to answer. An answer that stands beside them is taken off by the caller.


def _asked(row: Row) -> list[Message]:
    column = next(name for name in ("prompt", "instruction", "question", "query") if row.get(name) is not None)
    prompt = prompt_of(row[column], column)
    context = row.get("input") if column == "instruction" else None
    if context:
        prompt = [Message("user", f"{prompt[0].content}\n\n{text(context, 'input')}")]
    return with_system(row.get("system"), prompt)


PROMPTS: tuple[Layout[list[Message]], ...] = (
    *DIALOGUES[:2],
    Layout(
        "prompts",
        '{"prompt": "..."}  (also instruction with input, question, query)',
        lambda row: _first(row, ("prompt", "instruction", "question", "query")) is not None,
        _asked,
    ),
)


# Preference pairs


def _prompt_chosen(row: Row) -> Pair:
    column = _first(row, _PROMPTS)
    assert column is not None
    prompt = with_system(row.get("system"), prompt_of(row[column], column))
    return Pair(tuple(prompt), reply_of(row["chosen"], "chosen"), reply_of(row["rejected"], "rejected"))


def _whole(row: Row) -> Pair:
    sides = (conversation(row[side], system=row.get("system")) for side in ("chosen", "rejected"))
    return pair_of(*sides)


def _marked(row: Row) -> Pair:
    return pair_of(marked(row["chosen"], "chosen"), marked(row["rejected"], "rejected"))


def _shared_pair(row: Row) -> Pair:
    prompt = conversation(row["conversations"], system=row.get("system"))
    return Pair(tuple(prompt), reply_of(row["chosen"], "chosen"), reply_of(row["rejected"], "rejected"))


def _numbered(row: Row) -> Pair:
    better = int(row["better_response_id"])
    replies = [reply_of(row[f"response_{side}"], f"response_{side}") for side in (better, 1 - better)]
    return Pair(tuple(prompt_of(row["prompt"], "prompt")), *replies)


def _conversations(row: Row) -> bool:
    """chosen and rejected are whole conversations: more than a reply, or a list that begins with the user."""
    sides = [row.get("chosen"), row.get("rejected")]
    if not all(isinstance(side, list) and side and isinstance(side[0], Mapping) for side in sides):
        return False
    return all(len(side) > 1 for side in sides if isinstance(side, list))


PAIRS: tuple[Layout[Pair], ...] = (
    Layout(
        "whole conversations",
        '{"chosen": [{"role": "user", ...}, {"role": "assistant", ...}], "rejected": [...]}',
        _conversations,
        _whole,
    ),
    Layout(
        "hh-rlhf",
        '{"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": "..."}',
        lambda row: _first(row, _PROMPTS) is None and str(row.get("chosen", "")).startswith("\n\nHuman:"),
        _marked,
    ),
    Layout(
        "sharegpt pairs",
        '{"conversations": [{"from": "human", ...}], "chosen": {"from": "gpt", ...}, "rejected": {...}}',
        lambda row: _is_list(row, "conversations") and _has("chosen", "rejected")(row),
        _shared_pair,
    ),
    Layout(
        "prompt, chosen, rejected",
        '{"prompt": "..." or [messages], "chosen": "..." or [one message], "rejected": ...}  (also question/...)',
        lambda row: _has("chosen", "rejected")(row) and _first(row, _PROMPTS) is not None,
        _prompt_chosen,
    ),
    Layout(
        "two numbered responses",
        '{"prompt": "...", "response_0": "...", "response_1": "...", "better_response_id": 0}',
        _has("prompt", "response_0", "response_1", "better_response_id"),
        _numbered,
    ),
)
