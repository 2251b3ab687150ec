"""A task is a prompt with an exact verifier. Tasks are values: they can be written as JSON lines and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from herd.paddock.settings import CAPABILITIES, LANGUAGES
from herd.text.dialogues import message_from_dict, message_to_dict
from herd.text.message import Message

__all__ = ["CAPABILITIES", "LANGUAGES", "Check", "Task", "Verdict", "task_from_dict", "task_to_dict"]

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Check:
    """`kind` names a function of checks.py; `spec` is what it compares with."""

    kind: str
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """`messages` is the prompt, `answer` a reference reply that passes `check`.

    `keys` are what must be new in a held-out task: two tasks that share one ask the same thing.
    """

    id: str
    capability: str
    lang: str
    messages: tuple[Message, ...]
    answer: Message
    check: Check
    split: Split
    keys: tuple[str, ...] = ()

    def dialogue(self) -> tuple[Message, ...]:
        return (*self.messages, self.answer)


@dataclass(frozen=True)
class Verdict:
    ok: bool
    reason: str  # why not, in a few words that can be counted; "" when ok


def task_to_dict(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "capability": task.capability,
        "lang": task.lang,
        "messages": [message_to_dict(message) for message in task.messages],
        "answer": message_to_dict(task.answer),
        "check": {"kind": task.check.kind, "spec": dict(task.check.spec)},
        "split": task.split,
        "keys": list(task.keys),
    }


def task_from_dict(row: Mapping[str, Any]) -> Task:
    return Task(
        id=row["id"],
        capability=row["capability"],
        lang=row["lang"],
        messages=tuple(message_from_dict(message) for message in row["messages"]),
        answer=message_from_dict(row["answer"]),
        check=Check(row["check"]["kind"], row["check"]["spec"]),
        split=row["split"],
        keys=tuple(row.get("keys", ())),
    )
