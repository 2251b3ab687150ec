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
class WorstToken:
    """A place of a text where both models differ most: what stood before it, and the probability of what followed."""

    before: str
    expected: str
    bf16: Number = None
    fp8: Number = None
    kl: Number = None  # nats
    bf16_says: str = ""  # the likeliest token, by each
    fp8_says: str = ""


@dataclass(frozen=True)
class Fp8Check:
    """Section 7. `agreement` is the share of greedy tokens that both models choose alike.

    `divergences` are KL(BF16 || FP8) of single tokens in nats, thinned to quantiles at equal steps, 0 to 1.
    """

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
    reward_ks: Number = None  # Kolmogorov-Smirnov's D between the two distributions of rewards, and its p
    reward_p: Number = None
    capabilities: Mapping[str, tuple[Score | None, Score | None]] = field(default_factory=dict)  # BF16, FP8
    text: str = ""  # what was read, in words
    tokens: Count = None
    kl_mean: Number = None
    kl_p99: Number = None
    kl_max: Number = None
    divergences: tuple[Number, ...] = ()
    perplexity_bf16: Number = None
    perplexity_fp8: Number = None
    worst: tuple[WorstToken, ...] = ()
