"""Sections 5 to 7 of the report's data: the rounds, the flagship's teaching, FP8. Reach them through `data`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from herd.report.score import Count, Number, Score


@dataclass(frozen=True)
class Gate:
    passed: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Round:
    """One round of post-training; `before` and `after` are by capability."""

    name: str
    prompts: Count = None
    candidates: Count = None
    accepted: Count = None
    sft_dialogues: Count = None
    preference_pairs: Count = None
    reward_accuracy: Score | None = None
    before: Mapping[str, Score] = field(default_factory=dict)
    after: Mapping[str, Score] = field(default_factory=dict)
    average_before: Score | None = None
    average_after: Score | None = None
    gate: Gate | None = None


@dataclass(frozen=True)
class Teaching:
    """Section 6: the small model with and without what the flagship wrote; `gain` is paired, item by item."""

    student: str = "small"
    teacher: str = "flagship"
    budget: str = ""  # what both had, in words
    taught: Mapping[str, Score] = field(default_factory=dict)
    alone: Mapping[str, Score] = field(default_factory=dict)
    gain: Mapping[str, Score] = field(default_factory=dict)
    average_taught: Score | None = None
    average_alone: Score | None = None
    average_gain: Score | None = None


@dataclass(frozen=True)
class Fp8Check:
    """Section 7. `agreement` is the share of greedy tokens that both models choose alike."""

    model: str = "flagship"
    bf16: Score | None = None
    fp8: Score | None = None
    difference: Score | None = None
    bytes_bf16: Count = None
    bytes_fp8: Count = None
    rewards_bf16: tuple[Number, ...] = ()
    rewards_fp8: tuple[Number, ...] = ()
    agreement: Score | None = None
    kept: str = ""  # which layers stay in BF16, in words
