"""Phases of one schedule: where each goes on, gates of a long-context stage, prolonged, refused, killed in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from herd.config import to_plain
from herd.corpus.records import Document
from herd.corpus.streams import write_manifest
from herd.corpus.tokenize import tokenize
from herd.errors import SettingError, TrainingError
from herd.files import read_json, write_json
from herd.generate.protocol import Completion
from herd.progress import Silent
from herd.recipe import MixSettings, ModelRecipe, Shape
from herd.recipes import find
from herd.road import gates, pretrain, reading
from herd.road.gates import GateLog, Verdict, needles
from herd.road.graph import herd_of
from herd.road.settings import Pretrain
from herd.road.summary.lineage import at_gates
from herd.stages import Context
from herd.text import Tokenizer
from herd.train.phases import ContextGates, MixChange
from herd.train.settings import TrainSettings
from herd.weights.hf import load_model

SHAPE = Shape(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, ffn_dim=32, tie_embeddings=True)
SHORT = TrainSettings(
    steps=6, batch_tokens=64, seq_len=32, peak_lr=1e-3, warmup_steps=0, cosine_steps=40, checkpoint_every_steps=2
)
LONG = replace(SHORT, steps=4, batch_tokens=128, seq_len=128, schedule="constant", cosine_steps=0)
GATES = ContextGates(more_steps=2, times=2, short_context=32, tolerance=1.0, found=0.0, depths=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A tokenizer, mixed shards, and those of two sources by themselves."""
    folder = tmp_path_factory.mktemp("data")
    words = np.random.default_rng(0).choice(["old", "house", "river", "stone", "went", "over", "the"], (120, 40))
    pages = [Document(f"{n}", " ".join(row), "en", "ab"[n % 2]) for n, row in enumerate(words)]
    tokenizer = Tokenizer.train([page.text for page in pages], 560)
    tokenizer.save(folder / "tokenizer")
    tokenize(pages, tokenizer, folder / "shards", validation_fraction=0.1)
    for source in "ab":
        mine = [page for page in pages if page.source == source]
        tokenize(mine, tokenizer, folder / "aside" / source, validation_fraction=0.1)
        (folder / "sources").mkdir(exist_ok=True)
        (folder / "aside" / source / "train").rename(folder / "sources" / source)
    write_json(folder / "sources" / "sources.json", {"a": "a", "b": "b"})
    return folder


def settings(train: TrainSettings, **changes: object) -> Pretrain:
    return Pretrain(SHAPE, 560, train, 0, 0.05, **{"phase": 1, "phases": 2, "gates": GATES, **changes})


def context(data: Path, folder: Path, made: Pretrain, before: Path | None = None) -> Context:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    inputs = {name: data / name for name in ("tokenizer", "shards", "sources")}
    return Context(folder / "out", folder / "scratch", made, inputs | ({"before": before} if before else {}), Silent())


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory) -> Path:
    ctx = context(data, tmp_path_factory.mktemp("first"), settings(SHORT))
    pretrain.run(ctx)
    return ctx.out


def test_a_phase_goes_on_where_the_one_before_stopped(data, first, tmp_path):
    assert read_json(first / "position.json") == {"tokens": 6 * 64, "sources": {"mixed": 6 * 64}}
    ctx = context(data, tmp_path, settings(LONG, phase=2), first)
    made = pretrain.run(ctx)
    assert read_json(ctx.out / "position.json")["sources"] == {"mixed": 6 * 64 + 4 * 128}
    assert made["needles_found"] <= 1
    assert made["short_context_loss"] > 0
    assert read_json(ctx.out / "gates.json")[0]["passed"]
    assert [path.name for path in (first / "checkpoints").iterdir()] == ["step-6"]  # what the next one begins with
    assert not (ctx.out / "checkpoints").exists()  # nothing follows
    assert len((ctx.out / "history.jsonl").read_text().splitlines()) == 4


def test_a_stage_whose_gates_stay_shut_is_prolonged_and_then_refused(data, first, tmp_path, monkeypatch):
    shut = replace(GATES, found=1.0)
    monkeypatch.setattr(pretrain, "needles", lambda *_: [True, False])
    ctx = context(data, tmp_path, settings(LONG, phase=2, gates=shut), first)
    with pytest.raises(TrainingError, match=r"128 tokens after 8 steps and 2 prolongations(?s:.)*depth 100%"):
        pretrain.run(ctx)
    assert [one["steps"] for one in read_json(ctx.scratch / "gates.json")] == [4, 6]


def test_a_prolonged_stage_that_is_killed_goes_on_and_tells_how_far_it_went(data, first, tmp_path, monkeypatch):
    shut = replace(GATES, found=1.0)
    ctx = context(data, tmp_path, settings(LONG, phase=2, gates=shut), first)
    monkeypatch.setattr(pretrain, "needles", lambda *_: [False, False])

    with monkeypatch.context() as patch:
        real = pretrain.train

        def once(model, objective, source, given, *rest, **more):
            if given.steps == 6:
                raise KeyboardInterrupt
            return real(model, objective, source, given, *rest, **more)

        patch.setattr(pretrain, "train", once)
        with pytest.raises(KeyboardInterrupt):
            pretrain.run(ctx)
    monkeypatch.setattr(pretrain, "needles", lambda *_: [True, True])
    made = pretrain.run(ctx)
    assert made["prolonged_steps"] == 2
    assert made["tokens"] == 6 * 128
    assert [one["passed"] for one in read_json(ctx.out / "gates.json")] == [False, True]
    assert read_json(ctx.out / "position.json")["tokens"] == 6 * 64 + 6 * 128
    assert len((ctx.out / "history.jsonl").read_text().splitlines()) == 6


def test_short_context_that_did_not_recover_shuts_the_gate():
    assert Verdict.of(GATES, 1, 2.0, 1.0, [False]).passed
    assert not Verdict.of(replace(GATES, tolerance=0.1), 1, 2.0, 1.0, [True]).passed
    assert not Verdict.of(replace(GATES, found=0.6), 1, 1.0, 1.0, [True, False]).passed
    assert Verdict.of(replace(GATES, found=0.5), 1, 1.0, 1.0, [True, False]).passed


def test_a_log_of_verdicts_is_read_back(tmp_path):
    log = GateLog(tmp_path / "gates.json")
    log.add(Verdict(3, 1.0, 1.0, (True, False), False))
    assert GateLog(tmp_path / "gates.json").verdicts == log.verdicts
    assert (log.prolongations, log.passed) == (1, False)


def test_the_report_says_what_was_seen_at_the_gates_and_how_many_needles_were_needed(tmp_path):
    assert at_gates(tmp_path) == ""
    log = GateLog(tmp_path / "gates.json")
    log.add(Verdict.of(GATES, 3, 1.0, 1.0, [True, False]))
    assert at_gates(tmp_path).endswith("1 of 2 needles found, none needed; lost at depth 100%")
    log.add(Verdict.of(replace(GATES, found=0.6), 6, 1.0, 1.0, [True, True]))
    assert at_gates(tmp_path).endswith("2 of 2 needles found, 2 needed")


class Reader:
    """A generator that reads its prompt: it finds the numbers that stand within `sight` of the end."""

    def __init__(self, tokenizer: Tokenizer, sight: int) -> None:
        self.tokenizer, self.sight, self.prompts = tokenizer, sight, []

    def generate(self, requests, progress=None):
        self.prompts = [request.prompt for request in requests]
        return [self._answer(request.prompt[-self.sight :]) for request in requests]

    def _answer(self, seen) -> Completion:
        text = self.tokenizer.decode(seen)
        opening = text[text.rindex("\n") + 1 :]
        said = text.split(opening)[1].split(".")[0] if text.count(opening) > 1 else " 1"
        ids = tuple(self.tokenizer.encode(said))
        return Completion(ids, (0.0,) * len(ids), "stop")


def test_needles_stand_at_every_depth_of_rows_of_the_length(data):
    tokenizer = Tokenizer.load(data / "tokenizer")
    hay = gates.haystack(data / "shards" / "validation", 700)
    near, far = Reader(tokenizer, 400), Reader(tokenizer, 10**6)
    assert needles(far, tokenizer, hay, 600, 5) == [True] * 5
    assert {len(prompt) for prompt in far.prompts} <= set(range(600 - gates.ANSWER - 1, 601 - gates.ANSWER))
    found = needles(near, tokenizer, hay, 600, 5)
    assert found == sorted(found)
    assert found[0] is False
    assert found[-1] is True
    assert needles(far, tokenizer, hay[:50], 600, 3) == [True] * 3  # gone around when it is short


def test_a_mix_that_changes_reads_each_source_on_where_it_was(data, tmp_path):
    changes = (MixChange(0, {"a": 1.0}), MixChange(256, {"b": 1.0}), MixChange(640, {"a": 1, "b": 1}))
    mixed = {"mix": MixSettings(weights={"a": 1, "b": 1}, other=0.0), "changes": changes, "gates": None}
    ctx = context(data, tmp_path / "1", settings(SHORT, **mixed))
    pretrain.run(ctx)
    assert read_json(ctx.out / "position.json") == {"tokens": 384, "sources": {"a": 256, "b": 128}}
    after = context(data, tmp_path / "2", settings(LONG, **mixed, phase=2), ctx.out)
    pretrain.run(after)
    assert read_json(after.out / "position.json")["tokens"] == 896
    sources = read_json(after.out / "position.json")["sources"]
    assert (sources["a"], sources["b"]) == (256 + 128, 128 + 384)


def test_streams_are_read_like_the_sources_on_disk(data, tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("HERD_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    write_manifest(data / "sources", ["b"])
    memory.put(str(data / "sources"), "/streams", recursive=True)
    mixed = {"mix": MixSettings(weights={"a": 2, "b": 1}), "gates": None}
    changes = (MixChange(0, {"a": 2, "b": 1}),)
    here = context(data, tmp_path / "here", settings(SHORT, **mixed, changes=changes))
    streams = {"a": "memory://streams/a", "b": "memory://streams"}
    there = context(data, tmp_path / "there", settings(SHORT, **mixed, streams=streams))
    try:
        pretrain.run(here)
        pretrain.run(there)
    finally:
        memory.rm("/streams", recursive=True)
    one, other = (load_model(ctx.out).state_dict() for ctx in (here, there))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_does_not_go_on_with_other_shards(data, tmp_path):
    ctx = context(data, tmp_path, settings(SHORT, gates=None))
    reading.reading(ctx, Tokenizer.load(data / "tokenizer"), [12])
    write_json(ctx.scratch / "reading.json", {"mixed": "another"})
    with pytest.raises(SettingError, match="not those that this training began with"):
        pretrain.run(ctx)


def test_a_change_that_names_no_source_and_streams_of_another_tokenizer(data, tmp_path):
    wrong = settings(SHORT, mix=MixSettings(), changes=(MixChange(0, {"aa": 1.0}),), gates=None)
    wrong = replace(wrong, mix=MixSettings(other=0.0))
    with pytest.raises(SettingError, match="no source of the corpus has a weight"):
        pretrain.run(context(data, tmp_path / "1", wrong))
    streams = settings(SHORT, streams={"a": str(data / "sources" / "a")}, gates=None)
    facts = data / "sources" / "a" / "shards.json"
    kept = facts.read_text()
    facts.write_text(kept.replace(read_json(facts)["tokenizer"], "other"))
    try:
        with pytest.raises(SettingError, match="made by tokenizer other"):
            pretrain.run(context(data, tmp_path / "2", streams))
    finally:
        facts.write_text(kept)


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ((LONG,), "nothing to recover to"),
        ((SHORT, replace(LONG, schedule="cosine")), "rates depend on its length"),
        ((SHORT, replace(LONG, checkpoint_every_steps=0, checkpoint_every_seconds=0)), "keep its checkpoints"),
    ],
)
def test_gates_that_cannot_work_are_refused(phases, said):
    with pytest.raises(SettingError, match=said):
        ModelRecipe(SHAPE, phases, gates=GATES)


def test_changes_of_a_mix_ascend():
    with pytest.raises(SettingError, match="ascending"):
        ModelRecipe(SHAPE, (SHORT,), mixes=(MixChange(5, {"a": 1}), MixChange(5, {"b": 1})))


def test_the_405b_has_its_stages_with_gates_and_its_mix_changes_on_the_way():
    recipe = find("llama31_405b")
    stages = [stage for stage in herd_of(recipe).stages if stage.run.endswith("pretrain:run")]
    stages = [stage for stage in stages if stage.name.startswith("flagship-")]
    phases = [(stage, stage.settings.train) for stage in stages]
    gated = [stage for stage, phase in phases if stage.settings.gates.holds_for(phase.seq_len, phase.anneal_steps)]
    assert [stage.settings.train.seq_len for stage in gated] == [16_384, 32_768, 49_152, 65_536, 98_304, 131_072]
    assert gated[0].settings.gates.found == 1.0
    assert all("sources" in stage.inputs for stage in stages)
    assert all(sum(change.weights.values()) == pytest.approx(1) for change in recipe.flagship.mixes)
    assert to_plain(stages[0].settings)["phases"] == 10
