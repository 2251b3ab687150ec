"""What passes between the steps of a round: candidates, their judgement, preferences; and their files.

Candidates keep their tokens and log-probabilities, so nothing has to be computed a second time. Files are JSON lines
in the formats other trainers read: dialogues `{"messages": [...]}`, preferences `{"prompt", "chosen", "rejected"}`
with "edited" where there is one. Fields of ours that they do not know (task, capability) stand beside those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from herd.errors import FormatError, HerdError
from herd.files import read_jsonl, write_jsonl
from herd.text.dialogues import message_from_dict, message_to_dict
from herd.text.message import Message

T = TypeVar("T")


class Prompt(Protocol):
    """What a round needs of a task; `paddock.Task` is one, a user's own prompts with their own verifier another."""

    @property
    def id(self) -> str: ...
    @property
    def capability(self) -> str: ...
    @property
    def lang(self) -> str: ...
    @property
    def messages(self) -> tuple[Message, ...]: ...


@dataclass(frozen=True)
class Candidate:
    """Reply number `index` of the k drawn for one prompt; `logprobs` are the policy's own, one a token."""

    task_id: str
    index: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: Literal["stop", "length"]

    @property
    def logprob(self) -> float:
        """Log-probability of the whole reply under the policy that wrote it."""
        return sum(self.logprobs)


Ruling = Literal["correct", "wrong", "unverified"]


@dataclass(frozen=True)
class Judged:
    """A candidate with the verifier's ruling and, where it was needed, the reward model's score (a log odds)."""

    candidate: Candidate
    reply: Message
    ruling: Ruling
    reason: str = ""
    reward: float | None = None

    def with_reward(self, reward: float | None) -> Judged:
        return replace(self, reward=reward)

    @property
    def text(self) -> str:
        """What the reply says: its prose, then its tool call."""
        return reply_text(self.reply)


@dataclass(frozen=True)
class Accepted:
    """A dialogue that is good enough to train on: a prompt with a reply of a model."""

    task_id: str
    capability: str
    lang: str
    messages: tuple[Message, ...]
    text: str  # of the reply alone
    quality: float = 1.0  # the reward, as a share of the replies that it beats; 1.0 without a reward model
    difficulty: float = 0.0  # 1 - pass rate of the prompt


@dataclass(frozen=True)
class Preference:
    """Two replies to one prompt, the better one first; `edited` is a still better one that grew out of `chosen`."""

    task_id: str
    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    edited: Message | None = None

    def ranked(self) -> tuple[tuple[Message, Message], ...]:
        """Every (better, worse) pair in edited > chosen > rejected, for the reward model (paper 4.1.2)."""
        if self.edited is None:
            return ((self.chosen, self.rejected),)
        return (self.edited, self.chosen), (self.edited, self.rejected), (self.chosen, self.rejected)

    def widest(self) -> tuple[Message, Message]:
        """The best and the worst reply, for DPO."""
        return self.edited or self.chosen, self.rejected


def reply_text(reply: Message) -> str:
    """A message's content and its tool calls as one text, the form in which replies are compared."""
    return " ".join([reply.content, *(call.json() for call in reply.tool_calls)]).strip()


def candidate_to_row(candidate: Candidate) -> dict[str, Any]:
    return {
        "task": candidate.task_id,
        "index": candidate.index,
        "text": candidate.text,
        "finish": candidate.finish,
        "tokens": list(candidate.tokens),
        "logprobs": list(candidate.logprobs),  # in full: a resumed round must reach the same bits
    }


def candidate_from_row(row: Mapping[str, Any]) -> Candidate:
    return Candidate(
        task_id=row["task"],
        index=row["index"],
        tokens=tuple(row["tokens"]),
        logprobs=tuple(row["logprobs"]),
        text=row["text"],
        finish=row["finish"],
    )


def judged_to_row(judged: Judged) -> dict[str, Any]:
    """The judgement alone, for a file beside the candidates; the two are joined by task and index."""
    return {
        "task": judged.candidate.task_id,
        "index": judged.candidate.index,
        "ruling": judged.ruling,
        "reason": judged.reason,
        "reward": judged.reward,
        "reply": message_to_dict(judged.reply),
    }


def judged_from_row(row: Mapping[str, Any], candidate: Candidate) -> Judged:
    return Judged(candidate, message_from_dict(row["reply"]), row["ruling"], row["reason"], row["reward"])


def write_accepted(path: Path, accepted: Iterable[Accepted]) -> int:
    """Dialogues as JSONL `{"messages": [...]}` with their task, capability, quality and difficulty beside."""
    return write_jsonl(
        path,
        (
            {
                "messages": [message_to_dict(message) for message in one.messages],
                "task": one.task_id,
                "capability": one.capability,
                "lang": one.lang,
                "text": one.text,
                "quality": one.quality,
                "difficulty": one.difficulty,
            }
            for one in accepted
        ),
    )


def read_accepted(path: Path) -> list[Accepted]:
    """Read what `write_accepted` wrote. Raises FormatError naming the line that is not such a row."""

    def build(row: Mapping[str, Any]) -> Accepted:
        messages = tuple(message_from_dict(message) for message in row["messages"])
        names = ("capability", "lang", "text", "quality", "difficulty")
        return Accepted(task_id=row["task"], messages=messages, **{name: row[name] for name in names})

    return list(read_rows(path, build))


def write_preferences(path: Path, preferences: Iterable[Preference]) -> int:
    """Preferences as JSONL `{"prompt": [...], "chosen": [...], "rejected": [...], "edited"?: [...]}`."""
    return write_jsonl(path, (_preference_to_row(preference) for preference in preferences))


def read_preferences(path: Path) -> list[Preference]:
    """Read preferences of ours or of others. Raises FormatError naming the line that is not one."""

    def one(messages: Sequence[Mapping[str, Any]]) -> Message:
        if len(messages) != 1:
            raise FormatError("a reply must be exactly one message")
        return message_from_dict(messages[0])

    def build(row: Mapping[str, Any]) -> Preference:
        return Preference(
            task_id=str(row.get("task", "")),
            prompt=tuple(message_from_dict(message) for message in row["prompt"]),
            chosen=one(row["chosen"]),
            rejected=one(row["rejected"]),
            edited=one(row["edited"]) if row.get("edited") else None,
        )

    return list(read_rows(path, build))


def read_rows(path: Path, build: Callable[[Mapping[str, Any]], T]) -> Iterator[T]:
    """Build a record from every JSON line; what is not one is a FormatError with the row's number."""
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            yield build(row)
        except (KeyError, TypeError, AttributeError, HerdError) as error:
            what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
            raise FormatError(f"row {number} is not what is kept here: {what}", where=str(path)) from error


def _preference_to_row(preference: Preference) -> dict[str, Any]:
    row: dict[str, Any] = {
        "prompt": [message_to_dict(message) for message in preference.prompt],
        "chosen": [message_to_dict(preference.chosen)],
        "rejected": [message_to_dict(preference.rejected)],
    }
    if preference.edited is not None:
        row["edited"] = [message_to_dict(preference.edited)]
    return {**row, "task": preference.task_id}
