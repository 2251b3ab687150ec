"""Marks of chat templates inside texts: a sign that a dataset holds rendered prompts where messages are expected."""

from __future__ import annotations

from collections.abc import Sequence

from herd.text.datasets.turns import Pair
from herd.text.message import Message

# Of ChatML, Llama 2, Llama 3, Gemma, Zephyr and Alpaca's prompt. None is a special token inside a text here.
_MARKS = ("<|im_start|>", "[/INST]", "<|start_header_id|>", "<start_of_turn>", "<|assistant|>", "### Response:")


def foreign_marks(record: object) -> list[str]:
    """The marks that stand in the texts of a record, each once."""
    messages: Sequence[Message]
    if isinstance(record, Pair):
        messages = (*record.prompt, record.chosen, record.rejected)
    else:
        assert isinstance(record, list)
        messages = record
    return [mark for mark in _MARKS if any(mark in message.content for message in messages)]
