"""The whole road in under two minutes: every stage of nano with models too small to be good. The tests run it."""

from __future__ import annotations

from dataclasses import replace

from herd.paddock.settings import PaddockSettings, WorldSettings
from herd.posttrain.settings import DpoSettings, RewardSettings, TeachSettings
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
from herd.recipes.nano import SEQ_LEN, one_round, rejection, training
from herd.train.phases import ContextGates, MixChange
from herd.train.settings import TrainSettings


def _world() -> PaddockSettings:
    full = PaddockSettings()
    return replace(
        full,
        world=WorldSettings(towns=8, held_out=0.2),
        documents={kind: max(20, count // 12) for kind, count in full.documents.items()},
        dialogues_per_capability=40,
        prompts_per_capability=30,
        held_out_per_capability=16,
        conversations=80,
        conversation_prompts=30,
        conversation_probe=16,
        noise_per_kind=40,
    )


def _phases() -> tuple[TrainSettings, ...]:
    """The paper's whole schedule, small: batch and rows grow, a long-context stage, annealing (section 3.4)."""
    plain = training(160, 4e-3)
    first = replace(plain, steps=60, batch_tokens=512, cosine_steps=160)
    second = replace(first, steps=80, batch_tokens=1024, schedule_offset=60)
    long = replace(
        plain, steps=12, seq_len=2 * plain.seq_len, peak_lr=4e-4, warmup_steps=0, schedule="constant", cosine_steps=0
    )
    return (first, second, long, replace(long, steps=16, anneal_steps=16))


def pico() -> Recipe:
    shape = Shape(dim=64, n_layers=4, n_heads=2, n_kv_heads=1, ffn_dim=160, tie_embeddings=True)
    one = one_round(1, 30, 60, 1.0)
    one = replace(
        one,
        dpo=DpoSettings(train=training(8, 5e-5), min_pairs=2),
        reward=RewardSettings(train=training(8, 5e-4), start="policy", min_pairs=2),
    )
    phases = _phases()
    two = replace(one, collect=rejection(60, 0.8, seed=2))
    return Recipe(
        name="pico",
        about="the whole road in under two minutes, with models too small to be good",
        flagship=ModelRecipe(
            shape,
            phases,
            init_std=0.05,
            mixes=(
                MixChange(60_000, {"paddock": 0.9, "stdlib-docs": 0.06, "stdlib-code": 0.04}),
                MixChange(sum(p.steps * p.batch_tokens for p in phases[:-1]), {"paddock": 1.0}),
            ),
            # Nothing this small finds a number again after seconds: needles are looked for, and none is needed. What is
            # asked of it is that it loses nothing in short rows.
            gates=ContextGates(more_steps=6, times=3, short_context=SEQ_LEN, tolerance=0.02, found=0.0, depths=3),
        ),
        small=SmallRecipe(
            model=ModelRecipe(replace(shape, dim=32, n_layers=3, n_heads=1, ffn_dim=96), (training(60, 4e-3),), seed=1),
            start=training(40, 2e-3),
            teach=TeachSettings(sft=training(30, 2e-3), collect=rejection(40, 0.8, seed=11)),
        ),
        posttrain=PosttrainRecipe(start=training(80, 2e-3), rounds=(one, two)),
        documents=DocumentSettings(stdlib_modules=6, paddock=_world()),
        tokenizer=TokenizerSettings(vocab_size=2048, sample_characters=1_000_000),
        mix=MixSettings(tokens=200_000, piece_characters=1500),
        # Rungs of 40 to 210 steps are on the first plateau of training, and the forecast says so (scaling/law.py); ones
        # that are off it would take longer than all else here.
        ladder=LadderRecipe(budgets=(1 / 16, 1 / 8, 1 / 4), spread=(0.4, 1.0, 2.2), min_steps=8),
        suite=SuiteSettings(max_tokens=48),
        at_once=2,
    )
