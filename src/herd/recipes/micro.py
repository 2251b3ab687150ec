"""A herd of about 125M and 30M parameters on real text from the hub: one GPU for an evening.

The sizes follow nano's proportions, the tokens about twenty a parameter; all of it is herd's choice.
"""

from __future__ import annotations

from dataclasses import replace

from herd.hub.settings import HubDataset
from herd.posttrain.settings import (
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
from herd.train.settings import TrainSettings


def _training(steps: int, peak_lr: float, batch_tokens: int = 2**18, anneal: float = 0.0) -> TrainSettings:
    return TrainSettings(
        steps=steps,
        batch_tokens=batch_tokens,
        seq_len=2048,
        microbatch_tokens=min(batch_tokens, 2**16),
        peak_lr=peak_lr,
        warmup_steps=min(2000, max(1, steps // 20)),
        min_lr_ratio=0.1,
        anneal_steps=round(steps * anneal),
        average_every=20,
        dtype="bfloat16",
    )


# The other seven languages, by their folders in FineWeb-2.
_LANGUAGES = {
    "de": "deu_Latn",
    "fr": "fra_Latn",
    "it": "ita_Latn",
    "pt": "por_Latn",
    "hi": "hin_Deva",
    "es": "spa_Latn",
    "th": "tha_Thai",
}


def _datasets() -> tuple[HubDataset, ...]:
    """About 2.6 billion tokens: two thirds English, the rest in even parts."""
    english = HubDataset(
        "HuggingFaceFW/fineweb-edu", files=("sample/10BT/*.parquet",), lang="en", max_bytes=8_000_000_000
    )
    others = (
        HubDataset(
            "HuggingFaceFW/fineweb-2",
            name=f"fineweb-2-{lang}",
            files=(f"data/{folder}/train/*.parquet",),
            lang=lang,
            max_bytes=600_000_000,
        )
        for lang, folder in _LANGUAGES.items()
    )
    return (english, *others)


def micro() -> Recipe:
    flagship = Shape(dim=768, n_layers=12, n_heads=12, n_kv_heads=4, ffn_dim=2048, tie_embeddings=True)
    small = Shape(dim=384, n_layers=8, n_heads=6, n_kv_heads=2, ffn_dim=1024, tie_embeddings=True)
    one = RoundSettings(
        sft=_training(600, 5e-5, 2**16),
        dpo=DpoSettings(train=_training(150, 1e-5, 2**16)),
        reward=RewardSettings(train=_training(150, 5e-5, 2**16)),
        collect=CollectSettings(draw=DrawSettings(k=10, temperature=0.9, max_tokens=256), prompts=4000),
        start="previous",
    )
    return Recipe(
        name="micro",
        about="a herd of 125M and 30M parameters on real text, one GPU for an evening",
        flagship=ModelRecipe(flagship, (_training(10_000, 6e-4, anneal=0.1),)),
        small=SmallRecipe(
            model=ModelRecipe(small, (_training(4000, 1e-3, anneal=0.1),), seed=1),
            start=_training(400, 1e-4, 2**16),
            teach=TeachSettings(sft=_training(800, 1e-4, 2**16), collect=CollectSettings(prompts=4000)),
        ),
        posttrain=PosttrainRecipe(start=_training(600, 1e-4, 2**16), rounds=(one, replace(one, seed=2))),
        documents=DocumentSettings(hub=_datasets(), stdlib_modules=0),
        tokenizer=TokenizerSettings(vocab_size=50_176, sample_characters=500_000_000),
        mix=MixSettings(
            weights={"paddock": 0.05, "fineweb-edu": 0.6} | {f"fineweb-2-{lang}": 0.05 for lang in _LANGUAGES},
            tokens=2_600_000_000,
        ),
        ladder=LadderRecipe(min_steps=100),
        suite=SuiteSettings(max_tokens=128, batch_size=512),
        needs="a GPU, a network, and 40 GB of disk for documents and shards",
    )
