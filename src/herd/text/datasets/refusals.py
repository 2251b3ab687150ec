"""What a dataset that fits no layout probably is, and which command or change reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from herd.text.datasets.turns import TURNS

_TEXTS = ("text", "content", "document", "body")


def is_labelled(row: Mapping[str, Any]) -> bool:
    """Whether single answers are marked as good or bad (KTO): learning them all would learn the bad ones too."""
    return str(row.get("label")).lower() in ("true", "false")


def advice(row: Mapping[str, Any], wanted: str) -> str:
    """A sentence on what to do with such rows, or "". `wanted`: "conversations", "prompts" or "preference pairs"."""
    have = {name for name, value in row.items() if value is not None}
    if is_labelled(row):
        return (
            "single answers with a label (KTO) are not trained on: keep the rows with a good label and drop the column "
            "for `herd train sft`, or pair a good and a bad answer to one prompt as chosen and rejected"
        )
    if wanted != "preference pairs" and {"chosen", "rejected"} <= have:
        return "these are preference pairs: `herd train dpo` and `herd train reward` learn from them"
    if wanted == "preference pairs" and {"chosen", "rejected"} <= have:
        return "answers without their prompt cannot be learnt: add it as 'prompt', or give whole conversations"
    if wanted == "preference pairs" and have & set(TURNS):
        return "these are conversations with one answer each: `herd train sft` learns from them"
    if have & set(_TEXTS) and not have & set(TURNS):
        return (
            "running text is for pre-training: `herd raise RECIPE --documents PATH`; a text with a chat template "
            "in it has to be taken apart into messages"
        )
    return ""
