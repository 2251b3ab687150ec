"""What the rows of a shared dataset look like: each layout is recognised by the columns it needs.

The order is the order of preference: a row that fits two is read as the first. Where the same columns mean two things
(`chosen` as a reply or as a whole conversation) the first row's values decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from herd.text.datasets.read import Row
from herd.text.datasets.refusals import is_labelled
from herd.text.datasets.turns import (
    TURNS,
    Pair,
    conversation,
    marked,
    pair_of,
    prompt_of,
    reply_of,
    text,
    with_definitions,
    with_system,
)
from herd.text.message import Message

T = TypeVar("T")
_PROMPTS = ("prompt", "question", "query", "instruction", "input")
_ANSWERS = ("output", "response")  # of an instruction
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
    return lambda row: any(_is_list(row, column) and key in row[column][0] for column in TURNS)


# Dialogues


def _messages(row: Row) -> list[Message]:
    column = next(column for column in TURNS if _is_list(row, column))
    return conversation(row[column], system=row.get("system"), tools=row.get("tools"))


def _instructed(row: Row) -> list[Message]:
    """What an Alpaca row asks: instruction, input or context behind it, earlier turns before it."""
    task = text(row["instruction"], "instruction")
    context = next((row[name] for name in ("input", "context") if row.get(name)), "")
    history: list[Message] = []
    for asked, said in row.get("history") or []:
        history += [Message("user", text(asked, "history")), Message("assistant", text(said, "history"))]
    asked = "\n\n".join(part for part in (task, text(context, "input")) if part)
    return with_system(row.get("system"), [*history, Message("user", asked)])


def _alpaca(row: Row) -> list[Message]:
    answer = _first(row, _ANSWERS)
    assert answer is not None
    return [*_instructed(row), Message("assistant", text(row[answer], answer))]


def _prompted(row: Row) -> list[Message]:
    prompt, reply = _first(row, _PROMPTS), _first(row, _REPLIES)
    assert prompt is not None
    assert reply is not None
    turns = [*prompt_of(row[prompt], prompt), reply_of(row[reply], reply)]
    return with_definitions(with_system(row.get("system"), turns), row.get("tools"))


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
        lambda row: _has("instruction")(row) and _first(row, _ANSWERS) is not None and not is_labelled(row),
        _alpaca,
    ),
    Layout(
        "prompt and completion",
        '{"prompt": "...", "completion": "..."}  (also question/answer, query/response, messages on either side)',
        lambda row: all(_first(row, names) is not None for names in (_PROMPTS, _REPLIES)) and not is_labelled(row),
        _prompted,
    ),
)


# Prompts alone, for a teacher to answer. An answer that stands beside them is taken off by the caller.


def _asked(row: Row) -> list[Message]:
    column = next(name for name in ("prompt", "instruction", "question", "query") if row.get(name) is not None)
    if column == "instruction" and isinstance(row[column], str):
        return _instructed(row)
    return with_definitions(with_system(row.get("system"), prompt_of(row[column], column)), row.get("tools"))


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
    prompt = with_definitions(with_system(row.get("system"), prompt_of(row[column], column)), row.get("tools"))
    return Pair(tuple(prompt), reply_of(row["chosen"], "chosen"), reply_of(row["rejected"], "rejected"))


def _whole(row: Row) -> Pair:
    system, tools = row.get("system"), row.get("tools")
    sides = (conversation(row[side], system=system, tools=tools) for side in ("chosen", "rejected"))
    return pair_of(*sides)


def _marked(row: Row) -> Pair:
    return pair_of(marked(row["chosen"], "chosen"), marked(row["rejected"], "rejected"))


def _shared_pair(row: Row) -> Pair:
    prompt = conversation(row["conversations"], system=row.get("system"), tools=row.get("tools"))
    return Pair(tuple(prompt), reply_of(row["chosen"], "chosen"), reply_of(row["rejected"], "rejected"))


def _numbered(row: Row) -> Pair:
    better = int(row["better_response_id"])
    replies = [reply_of(row[f"response_{side}"], f"response_{side}") for side in (better, 1 - better)]
    return Pair(tuple(prompt_of(row["prompt"], "prompt")), *replies)


def _conversations(row: Row) -> bool:
    """chosen and rejected are whole conversations: more than a reply each, and not begun by the assistant."""
    sides = [row.get("chosen"), row.get("rejected")]
    if not all(isinstance(side, list) and side and isinstance(side[0], Mapping) for side in sides):
        return False
    speakers = [side[0].get("role") or side[0].get("from") for side in sides if isinstance(side, list)]
    return all(len(side) > 1 for side in sides if isinstance(side, list)) and not {"assistant", "gpt"} & set(speakers)


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
