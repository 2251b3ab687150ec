"""Streams of `bench.soak` put together again to the answer that the same request gets without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def joined(events: Sequence[Any]) -> dict[str, Any]:
    """The whole answer out of the events of a stream. Raises ValueError for a stream that breaks off."""
    if events and isinstance(events[-1], dict) and str(events[-1].get("type", "")).startswith("response."):
        return _joined_response(events)
    if not events or events[-1] != "[DONE]":
        raise ValueError("a stream without its [DONE]")
    usage: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for event in events[:-1]:
        if "error" in event:
            raise ValueError(f"an error within a stream: {event['error']}")
        usage = event.get("usage") or usage
        for delta in event["choices"]:
            _add(choices.setdefault(delta["index"], _empty(delta["index"])), delta)
    return {"choices": [choices[index] for index in sorted(choices)], "usage": usage}


def _empty(index: int) -> dict[str, Any]:
    message = {"content": "", "tool_calls": []}
    return {"index": index, "text": "", "message": message, "logprobs": {"content": []}, "finish_reason": None}


def _add(choice: dict[str, Any], delta: dict[str, Any]) -> None:
    choice["finish_reason"] = delta.get("finish_reason") or choice["finish_reason"]
    choice["text"] += delta.get("text", "")
    choice["logprobs"]["content"] += (delta.get("logprobs") or {}).get("content") or []
    said = delta.get("delta", {})
    choice["message"]["content"] += said.get("content") or ""
    calls = choice["message"]["tool_calls"]
    for call in said.get("tool_calls", ()):
        if call["index"] == len(calls):
            calls.append({"function": {"name": call["function"].get("name"), "arguments": ""}})
        calls[call["index"]]["function"]["arguments"] += call["function"].get("arguments") or ""


def _joined_response(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    numbers = [event["sequence_number"] for event in events]
    if numbers != list(range(len(numbers))):
        raise ValueError("events out of their order")
    last = events[-1]
    if last["type"] not in ("response.completed", "response.incomplete"):
        raise ValueError(f"a stream that ends with {last['type']}")
    answer: dict[str, Any] = last["response"]
    return answer
