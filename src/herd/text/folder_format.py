"""Conversations as ids by a model's own chat template (`herd.text.folder_template`).

The template's text is cut where an answer begins and ends, and at special tokens; the pieces are encoded apart, so a
prompt is a prefix of the dialogue that goes on with its answer. What messages spell stays text: special tokens in them
are hidden from the template behind characters that no text has, and put back piece by piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from herd.errors import InputError
from herd.text.beginnings import Beginnings
from herd.text.folder_template import Difference, FolderTemplate, differs, parting
from herd.text.message import Message

if TYPE_CHECKING:
    from herd.text.tokenizer import Tokenizer

Marked = tuple[int, bool, Literal["bos", "header", "content", "stop"]]  # id, trained, kind
_OPEN, _SHUT = "\ufdd0", "\ufdd1"  # noncharacters of Unicode


class FolderFormat:
    """Encodes with `tokenizer` what `template` writes."""

    def __init__(self, tokenizer: Tokenizer, template: FolderTemplate) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._names = tokenizer.special_names
        self._special = re.compile("(" + "|".join(map(re.escape, sorted(self._names, key=len, reverse=True))) + ")")
        self._risky = re.compile(f"{self._special.pattern[:-1]}|{_OPEN}|{_SHUT})")
        self._hidden = {name: f"{_OPEN}{i}{_SHUT}" for i, name in enumerate([*self._names, _OPEN, _SHUT])}
        self._shown = {code: name for name, code in self._hidden.items()}

    @property
    def differences(self) -> tuple[Difference, ...]:
        """In what it differs from herd's own format."""
        return self._template.differences

    def told(self, indent: str = "  ") -> str:
        """The differences in words: a line that says what they mean, then one each after `indent`."""
        return differs(self.differences, indent)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the conversation with an open assistant header."""
        return [i for text, _ in self._pieces(messages, opened=True) for i in self._ids(text)]

    def dialogue(self, messages: Sequence[Message]) -> list[Marked]:
        """The whole conversation; trained is what the template writes for assistant messages, up to the stop token."""
        marked: list[Marked] = []
        for text, learn in self._pieces(messages, opened=False):
            ids = self._ids(text)
            specials = [place for place, token in enumerate(ids) if self._tokenizer.is_special(token)]
            stop = specials[-1] if learn and specials else len(ids)
            for place, token in enumerate(ids):
                inside = learn and place <= stop
                kind: Literal["header", "content", "stop"] = "content" if inside else "header"
                marked.append((token, inside, "stop" if inside and place == stop else kind))
        if marked and marked[0][0] == self._tokenizer.bos:
            marked[0] = (marked[0][0], False, "bos")
        return marked

    def stop_ids(self) -> tuple[int, ...]:
        """The special token with which the template ends an answer, if it does."""
        marked = self.dialogue([Message("user", "How many?"), Message("assistant", "Seven.")])
        return tuple(token for token, _, kind in marked if kind == "stop")

    def _pieces(self, messages: Sequence[Message], *, opened: bool) -> Iterator[tuple[str, bool]]:
        """The text in pieces, each with whether an assistant writes it."""
        texts = self._template.beginnings(messages, hide=self._hide)
        whole, done = texts.render(len(messages), opened=opened), 0
        for place, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = texts.render(place, opened=True) if place else ""
            answered = self._answered(texts, place + 1, done)
            if not (whole.startswith(answered) and answered.startswith(before) and done <= len(before) < len(answered)):
                raise InputError(
                    f"the model's chat template writes message {place + 1} otherwise than the model would have to",
                    mend="it changes earlier answers when later messages come; train on conversations of one answer",
                )
            yield whole[done : len(before)], False
            yield answered[len(before) :], True
            done = len(answered)
            texts.know(answered, place + 1)
        yield whole[done:], False

    def _answered(self, texts: Beginnings, n: int, done: int) -> str:
        """The text up to where the last of `n` messages, an answer, ends, whatever comes then; `done`: the one before.

        Some templates write a token more behind the last message of all: there the text with an open header parts from
        the closed one, and the answer ends with the last special token that both have.
        """
        closed = texts.render(n, opened=False)
        common = closed[: parting(closed, texts.render(n, opened=True))]
        if common == closed:
            return closed
        return common[: max((found.end() for found in self._special.finditer(common, done)), default=0)]

    def _hide(self, text: str) -> str:
        return self._risky.sub(lambda found: self._hidden[found[0]], text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in self._special.split(text):
            if piece in self._names:
                ids.append(self._tokenizer.special(piece))
            elif piece:
                shown = re.sub(f"{_OPEN}\\d+{_SHUT}", lambda found: self._shown[found[0]], piece)
                ids += self._tokenizer.encode(shown)
        return ids
