"""The settings of the road's stages, each cut out of the recipe so that a stage's hash covers what it uses, no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from herd.corpus.settings import ReadSettings
from herd.hub.settings import HubDataset
from herd.posttrain.settings import RoundSettings, TeachSettings
from herd.recipe import MixSettings, ModelRecipe, Recipe, Shape, SuiteSettings, TokenizerSettings
from herd.scaling.ladder import RunPlan
from herd.scaling.settings import FitSettings
from herd.train.phases import ContextGates, MixChange
from herd.train.settings import TrainSettings


@dataclass(frozen=True)
class Documents:
    """`user_state` is a hash of names, sizes and times below the user's folder: a changed folder is read again."""

    user: str
    user_state: str
    read: ReadSettings
    stdlib_modules: int


@dataclass(frozen=True)
class HubDocuments:
    datasets: tuple[HubDataset, ...]
    read: ReadSettings


@dataclass(frozen=True)
class Vocabulary:
    """Merges are learnt on what the models will read: `mix` says how much of the sample each source gives."""

    tokenizer: TokenizerSettings
    mix: MixSettings


@dataclass(frozen=True)
class Pretrain:
    """One phase, number `phase` of `phases`. `mix` and `changes` are set where sources are read by themselves."""

    shape: Shape
    vocab_size: int
    train: TrainSettings
    seed: int
    init_std: float
    phase: int = 1
    phases: int = 1
    gates: ContextGates | None = None
    mix: MixSettings | None = None
    changes: tuple[MixChange, ...] = ()
    streams: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FlagshipSize:
    """What the law is asked about, told before the flagship is trained."""

    parameters: int
    body_parameters: int
    tokens: int
    flops: float


@dataclass(frozen=True)
class Forecast:
    fit: FitSettings
    flagship: FlagshipSize


@dataclass(frozen=True)
class RoundOf:
    number: int
    round: RoundSettings
    suite: SuiteSettings


@dataclass(frozen=True)
class TeachOf:
    kind: Literal["alone", "taught"]
    teach: TeachSettings
    suite: SuiteSettings


@dataclass(frozen=True)
class Summary:
    recipe: str
    allowed_error: float


def documents(recipe: Recipe) -> Documents:
    from herd.road.documents import folder_state

    settings = recipe.documents
    state = folder_state(settings.user) if settings.user else ""
    return Documents(settings.user, state, settings.read, settings.stdlib_modules)


def flagship_size(recipe: Recipe) -> FlagshipSize:
    from herd.scaling.ladder import body_parameters

    config = recipe.flagship.shape.config(recipe.tokenizer.vocab_size)
    return FlagshipSize(
        parameters=config.parameters(),
        body_parameters=body_parameters(config),
        tokens=recipe.flagship.tokens(),
        flops=recipe.flagship.flops(recipe.tokenizer.vocab_size),
    )


def phases(recipe: Recipe, model: ModelRecipe) -> list[Pretrain]:
    """A model's pre-training, phase after phase."""
    alone = bool(model.mixes or recipe.streams)
    return [
        Pretrain(
            model.shape,
            recipe.tokenizer.vocab_size,
            phase,
            model.seed,
            model.init_std,
            number,
            len(model.pretrain),
            model.gates,
            recipe.mix if alone else None,
            model.mixes,
            recipe.streams,
        )
        for number, phase in enumerate(model.pretrain, 1)
    ]


def ladder_run(recipe: Recipe, plan: RunPlan) -> Pretrain:
    """A rung is the flagship's main phase with the plan's shape, length, batch and learning rate, and its annealing."""
    main = recipe.flagship.main_phase
    config = plan.config
    shape = replace(
        recipe.flagship.shape,
        dim=config.dim,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        ffn_dim=config.ffn_dim,
    )
    train = replace(
        main,
        steps=plan.steps,
        batch_tokens=plan.batch_tokens,
        microbatch_tokens=0,
        seq_len=plan.seq_len,
        peak_lr=plan.peak_lr,
        warmup_steps=plan.warmup_steps,
        cosine_steps=0,
        schedule_offset=0,
        anneal_steps=round(plan.steps * recipe.flagship.annealed),
    )
    mix = recipe.mix if recipe.streams else None
    vocabulary, std = recipe.tokenizer.vocab_size, recipe.flagship.init_std
    return Pretrain(shape, vocabulary, train, plan.seed, std, mix=mix, streams=recipe.streams)


def allowed_error(recipe: Recipe) -> float:
    return recipe.ladder.allowed_error if recipe.ladder else 0.05
