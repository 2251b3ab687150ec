"""Which stages a recipe has, what each reads, and the names under which a user finds what they made.

    world ─▶ documents ─▶ corpus ─▶ tokenizer ─▶ shards ─▶ ladder runs ─▶ forecast
                                                  ├─▶ flagship-base ─▶ flagship-start ─▶ round-1 ─▶ ... ─▶ fp8
                                                  └─▶ small-base ─▶ small-start ─▶ small-alone, small-taught
    every model ─▶ scores;   everything ─▶ summary (report.html, claims.json)

The forecast stands before the flagship in this order and reads nothing of it: the prediction is made first. Stages
that may run at the same time stand side by side for lanes.py: the ladder's runs with the small model's pre-training;
the small model alone, the one taught, and all scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from herd.recipe import ModelRecipe, Recipe
from herd.road import settings as road
from herd.scaling.ladder import RunPlan, ladder
from herd.scaling.settings import LadderSettings
from herd.stages import Stage

# Raised when a stage makes something else of the same settings. World 2: code cases on both sides of each bound; 3:
# conversations, planted pages under their own source. Documents 2: loose files of a folder are one source; 3: no
# folder of a user's is the source `planted`; 4: pages of the standard library hold no addresses of objects. Corpus 2:
# rules mended by a blind test. Rounds 2: the reward model in transformers' layout. Scores 2, summary 2: the probe of
# conversations.
VERSIONS = {"world:run": 3, "documents:run": 4, "corpus:run": 3, "rounds:run": 2, "scores:run": 2, "summary:run": 2}


@dataclass(frozen=True)
class Herd:
    """All stages of a recipe in the order in which they run, and the friendly names of models."""

    stages: tuple[Stage, ...]
    names: dict[str, Stage]
    summary: Stage

    def stage(self, name: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.name == name), None)


def herd_of(recipe: Recipe) -> Herd:
    """The whole graph of `recipe`."""
    return _Graph(recipe).build()


class _Graph:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.stages: list[Stage] = []
        self.names: dict[str, Stage] = {}
        self.to_score: dict[str, Stage] = {}
        self.sources: dict[str, Stage] = {}  # where a model's mix changes on the way

    def add(self, name: str, run: str, settings: object, **inputs: Stage) -> Stage:
        stage = Stage(name, f"herd.road.{run}", settings, inputs, VERSIONS.get(run, 1))
        self.stages.append(stage)
        return stage

    def beside(self, name: str, run: str, settings: object, **inputs: Stage) -> Stage:
        """A stage that may run at the same time as its neighbours of this kind."""
        stage = replace(self.add(name, run, settings, **inputs), at_once=self.recipe.at_once)
        self.stages[-1] = stage
        return stage

    def build(self) -> Herd:
        recipe = self.recipe
        world: dict[str, Stage] = {}
        if recipe.documents.paddock:
            world["world"] = self.add("world", "world:run", recipe.documents.paddock)
        hub: dict[str, Stage] = {}
        if recipe.documents.hub:
            datasets = road.HubDocuments(recipe.documents.hub, recipe.documents.read)
            hub["hub"] = self.add("hub", "hub:run", datasets)
        documents = self.add("documents", "documents:run", road.documents(recipe), **world, **hub)
        corpus = self.add("corpus", "corpus:run", recipe.curate, documents=documents, **world)
        tokenizer = self.add(
            "tokenizer", "tokenizer:run", road.Vocabulary(recipe.tokenizer, recipe.mix), corpus=corpus, **world
        )
        shards = self.add("shards", "shards:run", recipe.mix, corpus=corpus, tokenizer=tokenizer)
        self.common = {"tokenizer": tokenizer, **world}
        self.data = {"shards": shards, "tokenizer": tokenizer}
        if not recipe.streams and any(model.mixes for model in recipe.models()):
            sources = self.add("source-shards", "source_shards:run", recipe.mix, corpus=corpus, tokenizer=tokenizer)
            self.sources = {"sources": sources}
        rungs = self.rungs()
        small = self.base("small", recipe.small.model, beside=True) if recipe.small else None
        self.forecast(rungs)
        flagship = self.flagship()
        if small:
            self.small(small, flagship)
        self.judge(flagship)
        inputs = {stage.name: stage for stage in self.stages}
        summary = self.add("summary", "summary:run", road.Summary(recipe.name, road.allowed_error(recipe)), **inputs)
        return Herd(tuple(self.stages), self.names, summary)

    def rungs(self) -> dict[str, Stage]:
        """The ladder's runs."""
        plans = ladder(ladder_settings(self.recipe)) if self.recipe.ladder else []
        return {plan.name: self.ladder_run(plan) for plan in plans}

    def ladder_run(self, plan: RunPlan) -> Stage:
        settings = road.ladder_run(self.recipe, plan)
        return self.beside(f"ladder-{plan.name}", "pretrain:run", settings, **self.data)

    def forecast(self, rungs: dict[str, Stage]) -> None:
        """The law fitted through the ladder's runs."""
        if self.recipe.ladder:
            settings = road.Forecast(self.recipe.ladder.fit, road.flagship_size(self.recipe))
            self.add("forecast", "forecast:run", settings, **rungs)

    def base(self, name: str, model: ModelRecipe, *, beside: bool = False) -> Stage:
        """Pre-training, phase after phase; the last one is `name`-base."""
        stage: Stage | None = None
        add = self.beside if beside else self.add
        for settings in road.phases(self.recipe, model):
            before = {"before": stage} if stage else {}
            label = f"{name}-base" if settings.phase == settings.phases else f"{name}-phase-{settings.phase}"
            sources = self.sources if settings.changes else {}
            stage = add(label, "pretrain:run", settings, **self.data, **sources, **before)
        assert stage is not None
        self.names[f"{name}-base"] = stage
        return stage

    def flagship(self) -> Stage:
        recipe = self.recipe
        base = model = self.base("flagship", recipe.flagship)
        rounds: list[Stage] = []
        if recipe.posttrain:
            self.score("flagship-base", base)
            model = self.add("flagship-start", "start:run", recipe.posttrain.start, base=base, **self.common)
            self.score("flagship-start", model)
            for number, settings in enumerate(recipe.posttrain.rounds, 1):
                earlier = {f"round-{n}": stage for n, stage in enumerate(rounds, 1)}
                model = self.add(
                    f"round-{number}",
                    "rounds:run",
                    road.RoundOf(number, settings, recipe.suite),
                    base=base,
                    policy=model,
                    **earlier,
                    **self.common,
                )
                rounds.append(model)
                self.score(f"round-{number}", model)
        self.names["flagship"] = model
        if recipe.quantize:
            fp8 = self.add("flagship-fp8", "quantize:run", recipe.quantize, model=model, **self.common)
            self.names["flagship-fp8"] = fp8
            if recipe.posttrain:
                self.score("flagship-fp8", fp8)
        return model

    def small(self, base: Stage, flagship: Stage) -> None:
        recipe = self.recipe
        assert recipe.small is not None
        start = self.add("small-start", "start:run", recipe.small.start, base=base, **self.common)
        for kind in ("alone", "taught"):
            settings = road.TeachOf(kind, recipe.small.teach, recipe.suite)
            inputs = {"student": start, **self.common}
            if kind == "taught":
                inputs |= {"teacher": flagship, **self.rounds()}
            stage = self.beside(f"small-{kind}", "teach:run", settings, **inputs)
            self.score(f"small-{kind}", stage)
        self.names["small"] = stage
        self.names["small-alone"] = next(s for s in self.stages if s.name == "small-alone")

    def rounds(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.stages if stage.name.startswith("round-")}

    def score(self, name: str, model: Stage) -> None:
        self.to_score[name] = model

    def judge(self, flagship: Stage) -> None:
        """The suite's scores of every model, and what FP8 changed besides them; none of these needs another."""
        suite = self.recipe.suite
        if "world" not in self.common:
            return
        for name, model in self.to_score.items():
            self.beside(f"scores-{name}", "scores:run", suite, model=model, **self.common)
        if "flagship-fp8" in self.to_score:
            last = {"round": flagship} if self.rounds() else {}
            models = {"bf16": flagship, "fp8": self.to_score["flagship-fp8"]}
            self.beside("fp8-check", "quantize:check", suite, **models, **last, **self.common)


def ladder_settings(recipe: Recipe) -> LadderSettings:
    """The ladder in the flagship's terms; its main phase says batch, sequence length and learning rate."""
    assert recipe.ladder is not None
    phase = recipe.flagship.main_phase
    return LadderSettings(
        flagship=recipe.flagship.shape.config(recipe.tokenizer.vocab_size),
        flagship_tokens=recipe.flagship.tokens(),
        flagship_batch=phase.batch_tokens,
        flagship_lr=phase.peak_lr,
        seq_len=phase.seq_len,
        budgets=recipe.ladder.budgets,
        spread=recipe.ladder.spread,
        min_steps=recipe.ladder.min_steps,
        size_exponent=recipe.ladder.size_exponent,
        batch_exponent=recipe.ladder.batch_exponent,
        lr_exponent=recipe.ladder.lr_exponent,
    )
