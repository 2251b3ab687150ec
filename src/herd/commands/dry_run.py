"""`herd raise RECIPE --dry-run`: every stage with its inputs, tokens, FLOPs and expected time on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from herd.commands.watch import clock
from herd.recipe import Recipe
from herd.road.graph import Herd
from herd.road.machine import cores
from herd.road.mixing import expected
from herd.road.settings import Pretrain, RoundOf, TeachOf
from herd.stages import Runner, Stage
from herd.train.settings import TrainSettings

# Share of the measured matrix rate that training reaches on a CPU; see bench/results. An estimate, and said to be.
_CPU_SHARE = 0.45


def show(recipe: Recipe, herd: Herd, folder: Path) -> None:
    import torch

    from herd.commands.rates import matrix_rate

    torch.set_num_threads(cores() or 1)  # as the run will
    rate = matrix_rate()
    runner = Runner(folder)
    config = recipe.flagship.shape.config(recipe.tokenizer.vocab_size)
    print(f"{recipe.name}: {recipe.about}")
    if recipe.needs:
        print(f"needs {recipe.needs}")
    _tell_datasets(recipe)
    print(f"mix of sources: {_mix(recipe)}")
    size = f"{config.parameters():,} parameters in {config.tensors()} tensors"
    print(f"flagship {size}, {recipe.flagship.tokens():,} tokens")
    print(f"this machine multiplies matrices at {rate / 1e9:,.0f} GFLOP/s; times assume {_CPU_SHARE:.0%} of it\n")
    print(f"{'stage':<26} {'tokens':>20} {'FLOPs':>9} {'time':>12}  reads")
    total = 0.0
    for stage in herd.stages:
        tokens, flops = cost(stage, recipe)
        seconds = flops / (rate * _CPU_SHARE)
        done = runner.finished(stage)
        total += 0.0 if done else seconds
        time = "done" if done else clock(seconds) if flops else "-"
        inputs = ", ".join(stage.inputs) if len(stage.inputs) <= 6 else f"{len(stage.inputs)} stages"
        cells = f"{tokens:>20,}" if tokens else f"{'-':>20}"
        print(f"{stage.name:<26} {cells} {f'{flops:9.2e}' if flops else '        -'} {time:>12}  {inputs}")
    print(f"\ntraining in all: about {clock(total)}; output in {folder}")


def _mix(recipe: Recipe) -> str:
    """Shares by the recipe's weights; a source that it names and that will not be there counts as if it were."""
    documents, weights = recipe.documents, recipe.mix.weights
    absent = [] if documents.paddock else ["paddock"]
    absent += [] if documents.stdlib_modules else ["stdlib-docs", "stdlib-code"]
    hub = [dataset.source for dataset in documents.hub]
    others = bool(documents.user) or any(source not in weights for source in hub)
    return expected(recipe.mix, [source for source in weights if source not in absent], others)


def _tell_datasets(recipe: Recipe) -> None:
    """What would be read from the hub; nothing is asked of it."""
    from herd.hub.client import Hub

    for dataset in recipe.documents.hub:
        files = ", ".join(dataset.files) or "every data file"
        print(f"reads {dataset.repo}@{dataset.revision} as '{dataset.source}': {files}; at most {dataset.limits()}")
    if recipe.documents.hub and Hub.from_environment().offline:
        print("offline (HF_HUB_OFFLINE is set): these can be read from the hub's cache on this machine only")


def cost(stage: Stage, recipe: Recipe) -> tuple[int, float]:
    """Tokens trained on and FLOPs of a stage; 0 where it does not train."""
    settings: Any = stage.settings
    vocab = recipe.tokenizer.vocab_size
    if isinstance(settings, Pretrain):
        config = settings.shape.config(vocab)
        return _tokens(settings.train), _tokens(settings.train) * config.flops_per_token(settings.train.seq_len)
    small = recipe.small is not None and stage.name.startswith("small")
    shape = recipe.small.model.shape if small and recipe.small else recipe.flagship.shape
    per_token = shape.config(vocab).flops_per_token
    trainings: list[TrainSettings] = []
    if isinstance(settings, TrainSettings):
        trainings = [settings]
    elif isinstance(settings, RoundOf):
        trainings = [settings.round.sft]
        trainings += [part.train for part in (settings.round.dpo, settings.round.reward) if part]
    elif isinstance(settings, TeachOf):
        trainings = [settings.teach.sft]
    return sum(map(_tokens, trainings)), sum(_tokens(one) * per_token(one.seq_len) for one in trainings)


def _tokens(settings: TrainSettings) -> int:
    return settings.steps * settings.batch_tokens
