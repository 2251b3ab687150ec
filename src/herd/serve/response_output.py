"""The output of a response while it grows: its items, and the events that tell of each change.

Text makes a message, a call an item of its own. White space around calls makes no message.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from herd.serve.chat import arguments_of, new_call_id
from herd.serve.reading import Call, Text

Event = dict[str, Any]


class Output:
    """`add` what was read, `finish` at the end; both return events without their sequence numbers."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._held = ""  # white space that may yet begin a message
        self._open = False  # whether the last item is a message that goes on

    def add(self, new: Sequence[Text | Call], logprobs: Sequence[dict[str, Any]] = ()) -> list[Event]:
        """`logprobs` of all the tokens that made `new`."""
        events: list[Event] = []
        for one in new:
            events += self._text(one.text, logprobs) if isinstance(one, Text) else self._call(one)
            logprobs = ()
        return events

    def finish(self, status: str) -> list[Event]:
        """An answer that said nothing is an empty message."""
        events: list[Event] = []
        if not self.items:
            held, self._held = self._held, ""
            events += self._begin() + self._delta(held, ())
        return events + self._close(status)

    def _text(self, text: str, logprobs: Sequence[dict[str, Any]]) -> list[Event]:
        events: list[Event] = []
        if not self._open:
            self._held += text
            if not self._held.strip():
                return []
            text, self._held = self._held, ""
            events = self._begin()
        return events + self._delta(text, logprobs)

    def _begin(self) -> list[Event]:
        self._open = True
        item = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "status": "in_progress"}
        self.items.append(item | {"content": []})
        events = [self._about("response.output_item.added", item=item | {"content": []})]
        self.items[-1]["content"] = [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]
        return [*events, self._about_part("response.content_part.added", part=dict(self._part))]

    def _delta(self, text: str, logprobs: Sequence[dict[str, Any]]) -> list[Event]:
        if not text and not logprobs:
            return []
        self._part["text"] += text
        self._part["logprobs"] = [*self._part["logprobs"], *logprobs]
        return [self._about_part("response.output_text.delta", delta=text, logprobs=list(logprobs))]

    def _call(self, call: Call) -> list[Event]:
        self._held = ""
        events = self._close("completed")
        arguments = arguments_of(call.call)
        item = {
            "id": f"fc_{secrets.token_hex(12)}",
            "type": "function_call",
            "call_id": new_call_id(),
            "name": call.call.name,
            "arguments": arguments,
            "status": "completed",
        }
        self.items.append(item)
        kind = "response.function_call_arguments"
        return [
            *events,
            self._about("response.output_item.added", item=item | {"arguments": "", "status": "in_progress"}),
            self._about(f"{kind}.delta", item_id=item["id"], delta=arguments),
            self._about(f"{kind}.done", item_id=item["id"], name=item["name"], arguments=arguments),
            self._about("response.output_item.done", item=item),
        ]

    def _close(self, status: str) -> list[Event]:
        """End the message that is open, if one is."""
        if not self._open:
            return []
        self._open = False
        self.items[-1]["status"] = status
        part = dict(self._part)
        return [
            self._about_part("response.output_text.done", text=part["text"], logprobs=part["logprobs"]),
            self._about_part("response.content_part.done", part=part),
            self._about("response.output_item.done", item=dict(self.items[-1])),
        ]

    @property
    def _part(self) -> dict[str, Any]:
        part: dict[str, Any] = self.items[-1]["content"][0]
        return part

    def _about(self, kind: str, **more: Any) -> Event:
        return {"type": kind, "output_index": len(self.items) - 1, **more}

    def _about_part(self, kind: str, **more: Any) -> Event:
        return self._about(kind, item_id=self.items[-1]["id"], content_index=0, **more)
