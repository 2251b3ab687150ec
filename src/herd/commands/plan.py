"""`herd plan MODEL`: how it would be trained or served on hardware that may not exist yet."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from herd.commands.plan_text import as_plain, serving_as_plain, tell_plan, tell_published, tell_serving
from herd.config import need, unknown
from herd.errors import ArtifactError, SettingError
from herd.files import read_json, write_text
from herd.llama.config import LlamaConfig, llama31_8b, llama31_70b, llama31_405b
from herd.recipes import RECIPES, find
from herd.report.plan import plan_picture
from herd.scaling.plan.failures import DAY
from herd.scaling.plan.hardware import Gpu, find_gpu
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.network import Network, find_network
from herd.scaling.plan.outlook import Outlook, outlook
from herd.scaling.plan.search import Found, best, check
from herd.scaling.plan.serving import serving
from herd.train.parallel.plan import ParallelPlan, parse_plan
from herd.weights.config_json import from_hf

_MODELS = {"llama31-8b": llama31_8b, "llama31-70b": llama31_70b, "llama31-405b": llama31_405b}
_BATCH, _TOKENS = 16_777_216, 15.6e12  # paper, sections 3.4.1 and 1: 405B after the ramp
_AXES = frozenset(("tp", "cp", "pp", "dp"))
_MOST_GPUS, _MOST = 2**20, 1e18


@dataclass(frozen=True)
class Asked:
    """What the user wrote; 0 and "" stand for what was left out."""

    model: str = ""
    gpus: int = 0
    gpu: str = "h100"
    network: str = ""
    watts: float = 0.0
    seq: int = 0
    batch_tokens: int = 0
    tokens: float = 0.0
    layout: str = ""
    rows: int = 0
    fp8: bool = False
    budget_days: float = 0.0
    dollars: float = 0.0
    context: int = 0
    seed: int = 0
    json: bool = False
    picture: str = ""
    serve: bool = False
    published: bool = False
    measure: str = ""

    def __post_init__(self) -> None:
        need(self, "gpus", 0 <= self.gpus <= _MOST_GPUS, f"1 to {_MOST_GPUS:,}")
        for name in ("watts", "seq", "batch_tokens", "tokens", "rows", "budget_days", "dollars", "context"):
            need(self, name, 0 <= getattr(self, name) <= _MOST, f"0 (left out) to {_MOST:.0e}")


@dataclass(frozen=True)
class Trained:
    """A model's shape, and how it is usually trained."""

    name: str
    config: LlamaConfig
    seq: int = 8192
    batch_tokens: int = _BATCH
    tokens: float = _TOKENS


def run(asked: Asked) -> int:
    """The command: which of its four uses is meant."""
    if asked.measure:
        from herd.commands.plan_measure import measure

        return measure(Path(asked.measure), sys.stdout)
    if asked.published:
        return tell_published(sys.stdout)
    if not asked.model:
        raise SettingError("no model is named", where="plan", mend="write e.g. herd plan llama31-405b --gpus 16384")
    return serve(asked) if asked.serve else plan(asked)


def plan(asked: Asked) -> int:
    trained, gpu = find_model(asked.model), _gpu(asked)
    seq = asked.seq or trained.seq
    job = Job(
        trained.config,
        asked.gpus or gpu.node,
        gpu,
        _network(asked, gpu),
        seq,
        asked.batch_tokens or max(1, trained.batch_tokens // seq) * seq,
        asked.tokens or trained.tokens,
    )
    found, job = _find(asked, job)
    ahead = outlook(job, found.way, found.step, seed=asked.seed, dollars=asked.dollars)
    if asked.picture:
        write_text(Path(asked.picture), plan_picture(job, found.way, found.step, found.memory) + "\n")
    if asked.json:
        print(json.dumps(as_plain(trained.name, job, found, ahead), indent=2))
    else:
        tell_plan(trained.name, job, found, ahead, sys.stdout)
        if asked.picture:
            print(f"\npicture in {asked.picture}")
    _within_budget(asked, job, ahead)
    return 0


def serve(asked: Asked) -> int:
    trained, gpu = find_model(asked.model), _gpu(asked)
    context = asked.context or min(trained.config.max_seq_len, 8192)
    held = serving(trained.config, gpu, _network(asked, gpu), context, asked.gpus)
    if asked.json:
        print(json.dumps(serving_as_plain(trained.name, gpu, context, held), indent=2))
    else:
        tell_serving(trained.name, trained.config, gpu, context, held, sys.stdout)
    return 0


def find_model(name: str) -> Trained:
    """A released size, a recipe's flagship, or the model that a folder or config.json describes."""
    if name in _MODELS:
        return Trained(name, _MODELS[name]())
    path = Path(name)
    if path.is_dir() or path.name == "config.json":
        file = path / "config.json" if path.is_dir() else path
        return Trained(name, from_hf(read_json(file), str(file)))
    if name not in RECIPES and path.suffix != ".json":
        raise unknown(name, [*_MODELS, *RECIPES], "a model, a recipe, a model folder or a config.json")
    recipe = find(name)
    flagship, main = recipe.flagship, recipe.flagship.main_phase  # a ramp's phases are planned as this one
    config = flagship.shape.config(recipe.tokenizer.vocab_size)
    return Trained(recipe.name, config, main.seq_len, main.batch_tokens, flagship.tokens())


def _gpu(asked: Asked) -> Gpu:
    gpu = find_gpu(asked.gpu)
    return gpu.capped(asked.watts) if asked.watts else gpu


def _network(asked: Asked, gpu: Gpu) -> Network:
    """As asked; else the network beside a measured machine's file, or the paper's."""
    if asked.network:
        return find_network(asked.network)
    if asked.gpu.endswith(".json"):
        beside = Path(asked.gpu).with_suffix(".network.json")
        if not beside.exists():
            raise ArtifactError("the machine's network is not described", where=str(beside), mend="give --network")
        return find_network(str(beside))
    return find_network("infiniband-200" if gpu.name == "a100" else "roce")


def _find(asked: Asked, job: Job) -> tuple[Found, Job]:
    """The best way on the GPUs that were given, or on the fewest that keep to the budget."""
    base, fixed = _given(asked, job)
    if asked.gpus or not asked.budget_days:
        return _on(asked, job, base, fixed), job
    # No layout computes without pause: below this number none can keep to the budget.
    least = job.steps * job.flops_per_step / (asked.budget_days * DAY * job.gpu.bf16_flops * (2 if asked.fp8 else 1))
    while job.gpus < least:
        job = replace(job, gpus=2 * job.gpus)
    while True:
        try:
            found = _on(asked, job, base, fixed)
            days = job.steps * found.step.seconds / DAY
            if days <= asked.budget_days:  # what breaks on the way adds to it
                days = outlook(job, found.way, found.step, seed=asked.seed).days
        except SettingError:
            days = float("inf")
        if days <= asked.budget_days:
            return found, job
        if job.gpus >= _MOST_GPUS:
            raise SettingError(
                f"no number of {job.gpu.name} up to {_MOST_GPUS:,} trains {job.tokens:.3g} tokens in "
                f"{asked.budget_days:g} days with {job.batch_tokens:,} tokens a step",
                where="budget_days",
                mend="give more days, fewer --tokens, or a larger --batch-tokens",
            )
        job = replace(job, gpus=2 * job.gpus)


def _given(asked: Asked, job: Job) -> tuple[ParallelPlan, frozenset[str]]:
    """What the layout on the command line says, and the names that it says it of."""
    base = ParallelPlan(compile=not job.gpu.measured, precision="fp8" if asked.fp8 else "dtype")
    if asked.fp8 and not job.gpu.fp8_flops:
        raise SettingError(f"{job.gpu.name} has no FP8 products", where="fp8", mend="leave --fp8 out")
    if not asked.layout:
        return base, frozenset()
    plan = parse_plan(asked.layout)
    names = frozenset(word.partition("=")[0].strip() for word in asked.layout.split(","))
    changes: Mapping[str, object] = {name: getattr(plan, name) for name in names}
    return replace(base, **changes), names  # type: ignore[arg-type]


def _on(asked: Asked, job: Job, base: ParallelPlan, fixed: frozenset[str]) -> Found:
    """The best way on so many GPUs; what the user decided is checked first, to say what is wrong with it."""
    base.check(job.config)
    if fixed >= _AXES:
        check(job, Way(base, asked.rows or 1))
    return best(job, base, fixed, asked.rows)


def _within_budget(asked: Asked, job: Job, ahead: Outlook) -> None:
    if asked.budget_days and ahead.days > asked.budget_days:
        raise SettingError(
            f"{ahead.days:.1f} days on {job.gpus:,} {job.gpu.name} are over the budget of {asked.budget_days:g}",
            where="budget_days",
            mend="leave --gpus out to be told the least number that keeps to it",
        )
