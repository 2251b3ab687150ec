"""Settings of a round of post-training and of teaching a smaller model. No torch.

Numbers name their source: "paper 4.2.2" is The Llama 3 Herd of Models (2407.21783), section 4.2.2. What was never
published says "herd's choice".
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from herd.errors import SettingError
from herd.train.settings import TrainSettings


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SettingError(message)


@dataclass(frozen=True)
class DrawSettings:
    """How candidates are sampled from the policy."""

    k: int = 10  # paper 4.2.2: "typically between 10 and 30" outputs a prompt
    temperature: float = 1.0  # paper 4.3.2: 0.2 to 1 at random in early rounds, 0.6 in the last one
    top_p: float = 1.0
    max_tokens: int = 256
    prompts_per_batch: int = 128  # a kill loses at most this many prompts; herd's choice
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.k >= 2, "k must be at least 2: with one reply a prompt there is nothing to choose from")
        _require(self.temperature > 0, "temperature must be above 0, or the k replies are all the same")
        _require(0 < self.top_p <= 1, "top_p must lie in (0, 1]")
        _require(self.max_tokens >= 1, "max_tokens must be at least 1")
        _require(self.prompts_per_batch >= 1, "prompts_per_batch must be at least 1")


@dataclass(frozen=True)
class JudgeSettings:
    """Which candidates the reward model scores, besides those between which it must choose."""

    agreement_prompts: int = 100  # on these all k replies are scored, to measure reward against verifier; 0: none
    batch_tokens: int = 8192  # padded tokens of one forward pass of the reward model
    accept_quantile: float = 0.75  # of the unverifiable: paper 4.2.3, the top quartile of reward scores is kept

    def __post_init__(self) -> None:
        _require(0 <= self.accept_quantile <= 1, "accept_quantile must lie in [0, 1]")


@dataclass(frozen=True)
class QualitySettings:
    """Thresholds of the rules in paper 4.2.3. The rules are the paper's, the numbers are herd's choice."""

    max_emoji: int = 3
    max_exclamations: int = 3
    max_apologies: int = 1
    loop_repeats: int = 4  # the same stretch of characters so many times in a row is a loop
    loop_chars: int = 24  # and those repeats cover at least so many characters
    length_deviations: float = 8.0  # robust standard deviations of log length within a capability and language
    length_minimum: int = 20  # groups smaller than this have no outliers
    near_duplicate: float = 0.95  # cosine between two answers to one prompt
    semantic_duplicate: float = 0.97  # cosine between two dialogues of a cluster, rare n-grams counting more
    cluster_size: int = 4096  # larger groups are split before pairs are compared

    def __post_init__(self) -> None:
        _require(self.loop_repeats >= 2, "loop_repeats must be at least 2")
        _require(self.near_duplicate > 0 and self.semantic_duplicate > 0, "thresholds must be above 0")


@dataclass(frozen=True)
class SelectSettings:
    """Which accepted answers become SFT data, and which answers are set against each other."""

    keep_per_prompt: int = 1  # paper 4.2.2: the best of the k
    difficulty_weight: float = 0.5  # chance that a prompt is kept = max(easy_floor, difficulty) ** weight; 0 keeps all
    easy_floor: float = 0.1  # difficulty = 1 - pass rate; a prompt that never fails counts as this hard
    pairs_per_prompt: int = 1
    pair_similarity: float = 0.995  # paper 4.2.1 drops pairs of similar responses; verified ones differ in what matters
    min_reward_gap: float = 1.0  # unverifiable pairs: a log odds of 1 stands for the paper's "significantly better"
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.keep_per_prompt >= 1, "keep_per_prompt must be at least 1")
        _require(self.difficulty_weight >= 0, "difficulty_weight must not be negative")
        _require(0 < self.easy_floor <= 1, "easy_floor must lie in (0, 1]")
        _require(self.pairs_per_prompt >= 0, "pairs_per_prompt must not be negative")


@dataclass(frozen=True)
class CollectSettings:
    """From a policy and prompts to training data: draw, judge, control, select."""

    draw: DrawSettings = field(default_factory=DrawSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    quality: QualitySettings = field(default_factory=QualitySettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    prompts: int = 0  # how many, chosen by seed from those given; 0: all of them
    seed: int = 0  # of that choice


@dataclass(frozen=True)
class MixSettings:
    """How often each source of dialogues stands in the SFT mix (paper 4.2.2: some are repeated, others thinned).

    2.5 means: every dialogue twice, and half of them, chosen by hash, a third time.
    """

    seed: float = 1.0
    accepted: float = 1.0  # this round's accepted answers
    earlier: float = 0.0  # those of the rounds before; with `start` "base" they are not in the weights yet
    extra: float = 1.0  # whatever else the caller hands in, e.g. synthetic data

    def __post_init__(self) -> None:
        _require(min(self.seed, self.accepted, self.earlier, self.extra) >= 0, "repeats must not be negative")


@dataclass(frozen=True)
class RewardSettings:
    """The reward model: trained on every preference so far, from the pre-trained checkpoint (paper 4.1.2)."""

    train: TrainSettings
    held_out: float = 0.1  # share of prompts whose pairs measure its accuracy instead of training it
    min_pairs: int = 8  # with fewer there is nothing to learn: no reward model is trained
    max_epochs: float = 4.0  # cuts train.steps when pairs are few: they are soon learnt by heart; herd's choice
    start: Literal["base", "policy"] = "base"

    def __post_init__(self) -> None:
        _require(0 <= self.held_out < 1, "held_out must lie in [0, 1)")
        _require(self.max_epochs > 0, "max_epochs must be above 0")


@dataclass(frozen=True)
class DpoSettings:
    """Preference training on the newest batch of pairs, against the SFT model as reference (paper 4.1.4)."""

    train: TrainSettings  # paper: peak learning rate 1e-5
    beta: float = 0.1  # paper 4.1.4
    nll_weight: float = 0.2  # paper 4.1.4: extra likelihood of the chosen response
    min_pairs: int = 8  # with fewer, DPO is left out and the round says so
    max_epochs: float = 3.0  # cuts train.steps when pairs are few; herd's choice

    def __post_init__(self) -> None:
        _require(self.beta > 0, "beta must be above 0")
        _require(self.max_epochs > 0, "max_epochs must be above 0")


@dataclass(frozen=True)
class Average:
    """Relative weights of the three models of a round in one weighted average of their parameters."""

    previous: float = 0.0
    sft: float = 0.0
    dpo: float = 0.0

    def __post_init__(self) -> None:
        weights = [getattr(self, part.name) for part in fields(self)]
        _require(min(weights) >= 0 and sum(weights) > 0, "weights of an average: none below 0, not all 0")


@dataclass(frozen=True)
class GateSettings:
    """A round's model goes on only if it scores at least `min_gain` above the model it set out from."""

    min_gain: float = 0.0  # points of the evaluation's average, on its own scale
    max_drop: float | None = None  # no capability may lose more than this; None: no such bound
    on_failure: Literal["keep", "stop"] = "keep"  # keep the best model so far and say so, or end with an error


@dataclass(frozen=True)
class RoundSettings:
    """One round: draw, judge, quality, select, reward, SFT, DPO, average, evaluate, gate."""

    sft: TrainSettings
    dpo: DpoSettings | None
    reward: RewardSettings | None
    collect: CollectSettings = field(default_factory=CollectSettings)
    mix: MixSettings = field(default_factory=MixSettings)
    start: Literal["base", "previous"] = "base"  # paper 4.1.3: SFT fine-tunes the pre-trained model
    averages: tuple[Average, ...] = (Average(dpo=1.0), Average(sft=0.5, dpo=0.5))  # the best on the evaluation goes on
    gate: GateSettings = field(default_factory=GateSettings)
    seed: int = 0  # of the mix

    def __post_init__(self) -> None:
        _require(
            self.collect.draw.k >= 8, "a round needs collect.draw.k of at least 8 replies a prompt (paper: 10 to 30)"
        )
        _require(bool(self.averages), "averages must name at least one mix of the round's models")


@dataclass(frozen=True)
class DistilSettings:
    """Learning from the teacher's distribution besides its text: its `top_k` logits at every trained token."""

    top_k: int = 16
    weight: float = 0.5  # share of the distillation term; the rest is ordinary cross-entropy
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _require(self.top_k >= 1, "top_k must be at least 1")
        _require(0 < self.weight <= 1, "weight must lie in (0, 1]")


@dataclass(frozen=True)
class TeachSettings:
    """The large model's accepted answers teach the small one; `learn_alone` uses the same settings without it."""

    sft: TrainSettings
    collect: CollectSettings = field(default_factory=CollectSettings)
    draw_anew: bool = True  # False: the teacher's answers are those handed in, from its own rounds
    mix: MixSettings = field(default_factory=MixSettings)
    distil: DistilSettings | None = None  # None: the teacher's text alone, as in the paper
    seed: int = 0  # of the mix
