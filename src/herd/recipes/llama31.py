"""Llama 3.1 at its three sizes, with the published settings.

Sources: "paper" is The Llama 3 Herd of Models (arXiv 2407.21783), "card" the released model card. Where the paper is
silent or contradicts itself, the value is marked as herd's choice. These recipes are validated and planned; raising
them takes a cluster, and data that is not ours to ship.
"""

from __future__ import annotations

from dataclasses import replace

from herd.posttrain.settings import (
    Average,
    CollectSettings,
    DpoSettings,
    DrawSettings,
    RewardSettings,
    RoundSettings,
    TeachSettings,
)
from herd.recipe import (
    DocumentSettings,
    LadderRecipe,
    MixSettings,
    ModelRecipe,
    PosttrainRecipe,
    Recipe,
    Shape,
    SmallRecipe,
    SuiteSettings,
    TokenizerSettings,
)
from herd.train.phases import ContextGates, MixChange
from herd.train.settings import TrainSettings

MILLION, BILLION, TRILLION = 10**6, 10**9, 10**12
VOCABULARY = 128_256  # 128,000 BPE tokens and 256 special ones

SHAPE_8B = Shape(dim=4096, n_layers=32, n_heads=32, n_kv_heads=8, ffn_dim=14_336)  # paper, table 3
SHAPE_70B = Shape(dim=8192, n_layers=80, n_heads=64, n_kv_heads=8, ffn_dim=28_672)  # paper, table 3
SHAPE_405B = Shape(dim=16_384, n_layers=126, n_heads=128, n_kv_heads=8, ffn_dim=53_248)  # paper, table 3

# The six stages of long context: 8K and 128K are the paper's ends, the lengths between are herd's choice.
CONTEXTS = (16_384, 32_768, 49_152, 65_536, 98_304, 131_072)


def pretraining(peak_lr: float, tokens: int) -> tuple[TrainSettings, ...]:
    """Initial training with its batch ramp, six long-context stages, annealing (paper, section 3.4).

    The cosine runs over all steps of initial training from one phase into the next: `schedule_offset` says where a
    phase begins in it.
    """
    first = _initial(peak_lr, 4 * 2**20, 4096, round(252 * MILLION), 0)  # 4M tokens a batch at length 4,096
    second = _initial(peak_lr, 8 * 2**20, 8192, round(2.87 * TRILLION - 252 * MILLION), first.steps)
    third_tokens = tokens - round(2.87 * TRILLION) - 800 * BILLION  # 800B are the long-context stages'
    third = _initial(peak_lr, 16 * 2**20, 8192, third_tokens, first.steps + second.steps)
    floor = peak_lr * 0.01
    long = tuple(
        TrainSettings(
            steps=round(800 * BILLION / 6 / (16 * 2**20)),  # paper: about 800B in all; equal parts are herd's choice
            batch_tokens=_batch(16 * 2**20, length),
            seq_len=length,
            microbatch_tokens=length,
            peak_lr=floor,
            warmup_steps=0,
            schedule="constant",
        )
        for length in CONTEXTS
    )
    # "final 40M tokens" in the paper is 2.4 steps and probably 40B; herd's choice is 40B (facts: contradictions)
    anneal_steps = round(40 * BILLION / (16 * 2**20))
    anneal = replace(long[-1], steps=anneal_steps, anneal_steps=anneal_steps, average_every=max(1, anneal_steps // 20))
    return (first, second, third, *long, anneal)


def mixes(phases: tuple[TrainSettings, ...]) -> tuple[MixChange, ...]:
    """Changes of the mix on the way (paper, section 3.4.1: more non-English, more mathematics, newer web pages; 3.4.3:
    upsampled sources of the highest quality while annealing). Only directions are public: numbers are herd's choice.
    """
    sizes = [phase.steps * phase.batch_tokens for phase in phases]
    return (
        MixChange(sum(sizes[:2]), {"web": 0.46, "math": 0.27, "code": 0.17, "multilingual": 0.10}),
        MixChange(sum(sizes[:-1]), {"web": 0.30, "math": 0.35, "code": 0.27, "multilingual": 0.08}),
    )


def _initial(peak_lr: float, batch: int, seq_len: int, tokens: int, offset: int) -> TrainSettings:
    return TrainSettings(
        steps=round(tokens / batch),
        batch_tokens=batch,
        seq_len=seq_len,
        microbatch_tokens=seq_len,
        peak_lr=peak_lr,
        warmup_steps=8000,  # paper, section 3.4.1
        min_lr_ratio=0.01,  # paper: 8e-5 down to 8e-7
        cosine_steps=1_200_000,  # paper
        schedule_offset=offset,
        dtype="bfloat16",
    )


def _batch(tokens: int, length: int) -> int:
    """The multiple of `length` nearest to `tokens`."""
    return max(1, round(tokens / length)) * length


def _sft(steps: int, peak_lr: float = 1e-5) -> TrainSettings:
    """Paper, section 4.1.3: learning rate 1e-5, 8.5K to 9K steps; batch size and length are herd's choice."""
    return TrainSettings(
        steps=steps,
        batch_tokens=2**20,
        seq_len=8192,
        microbatch_tokens=8192,
        peak_lr=peak_lr,
        warmup_steps=100,
        min_lr_ratio=0.1,
        dtype="bfloat16",
    )


def posttraining() -> PosttrainRecipe:
    """Six rounds of reward model, rejection sampling, SFT and DPO (paper, section 4.1)."""
    draw = DrawSettings(k=16, temperature=1.0, max_tokens=4096)  # paper: 10 to 30; the rest is herd's choice
    one = RoundSettings(
        sft=_sft(9000),
        dpo=DpoSettings(train=_sft(1000)),  # paper: 1e-5, beta 0.1, NLL 0.2; the number of steps is herd's choice
        reward=RewardSettings(train=_sft(1000)),
        collect=CollectSettings(draw=draw),
        start="base",
        averages=(Average(dpo=1.0), Average(sft=0.5, dpo=0.5)),
    )
    last = replace(one, collect=replace(one.collect, draw=replace(draw, temperature=0.6)))  # paper, section 4.3.2
    return PosttrainRecipe(start=_sft(9000), rounds=(one,) * 5 + (last,))


def _recipe(name: str, about: str, shape: Shape, peak_lr: float, tokens: int, gpus: str) -> Recipe:
    phases = pretraining(peak_lr, tokens)
    # herd's choice: the paper says that stages end when both gates are open, not by how much they were prolonged
    gates = ContextGates(more_steps=phases[3].steps // 10)
    return Recipe(
        name=name,
        about=about,
        flagship=ModelRecipe(shape, phases, mixes=mixes(phases), gates=gates),
        small=None,
        posttrain=posttraining(),
        documents=DocumentSettings(paddock=None, stdlib_modules=0),
        tokenizer=TokenizerSettings(vocab_size=VOCABULARY, released="tokenizer.model"),
        # paper, section 3.1.2: 50 % general knowledge, 25 % mathematics and reasoning, 17 % code, 8 % multilingual
        mix=MixSettings(weights={"web": 0.50, "math": 0.25, "code": 0.17, "multilingual": 0.08}, tokens=tokens),
        ladder=LadderRecipe(
            budgets=tuple(share / 3.8e25 for share in (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21, 1e22))
        ),
        suite=SuiteSettings(max_tokens=5120),
        needs=gpus,
    )


def llama31_8b() -> Recipe:
    return _recipe(
        "llama31_8b",
        "Llama 3.1 8B with the published settings",
        SHAPE_8B,
        3e-4,  # paper, table 3
        15_000_000_000_000,  # card: 15T+
        "a GPU cluster (1.46M H100 hours, card) and 15T tokens of documents",
    )


def llama31_70b() -> Recipe:
    return _recipe(
        "llama31_70b",
        "Llama 3.1 70B with the published settings",
        SHAPE_70B,
        1.5e-4,  # paper, table 3
        15_000_000_000_000,  # card: 15T+
        "a GPU cluster (7.0M H100 hours, card) and 15T tokens of documents",
    )


def llama31_405b() -> Recipe:
    """The flagship, and the 8B that learns from it."""
    flagship = _recipe(
        "llama31_405b",
        "Llama 3.1 405B with the published settings, teaching the 8B",
        SHAPE_405B,
        8e-5,  # paper, table 3
        15_600_000_000_000,  # paper, section 1
        "16,384 H100 GPUs (30.84M GPU hours, card) and 15.6T tokens of documents",
    )
    collect = CollectSettings(draw=DrawSettings(k=16, temperature=0.6, max_tokens=4096))
    small = SmallRecipe(llama31_8b().flagship, start=_sft(9000), teach=TeachSettings(sft=_sft(9000), collect=collect))
    return replace(flagship, small=small)
