"""An adopted model on many processes: what one process learns of it, in every way, and no process ever has it whole."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_on

sys.path.append(str(Path(__file__).parents[2] / "road"))

from adopt_models import save_drawn, shape

from herd.commands.train import Asked, resolve
from herd.files import read_json, read_jsonl, write_jsonl
from herd.road.adopt.graph import stages_of
from herd.road.together import TogetherRunner
from herd.stages import Runner
from herd.train.parallel.mesh import processes
from herd.train.parallel.plan import parse_plan
from herd.weights.hf_files import hf_entries

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SETTINGS = (
    *("train.seq_len=64", "train.batch_tokens=256", "train.microbatch_tokens=128", "train.peak_lr=3e-3"),
    *("train.steps=6", "train.dtype=float32", "held_out=0.2", "threads=1"),
)
PLANS = ("dp=2,shard=reshard", "tp=2", "pp=2")


@dataclass(frozen=True)
class Way:
    """One way to adopt, and the plans that it is tried under."""

    recipe: str
    data: str = "talks.jsonl"
    plans: tuple[str, ...] = PLANS
    asked: dict[str, Any] = field(default_factory=lambda: {"full": True})
    more: tuple[str, ...] = ()


WAYS = {
    "sft": Way("sft"),
    "dpo": Way("dpo", "pairs.jsonl"),
    "reward": Way("reward", "pairs.jsonl", ("dp=2,shard=reshard",)),
    "distil": Way("distil", asked={"full": True, "teacher": "teacher"}),
    "adapter": Way("sft", plans=("dp=2",), asked={}, more=("adapter.rank=4", "train.checkpoint_every_seconds=0")),
    "bare": Way("sft", plans=("dp=2",), more=("train.checkpoint_every_seconds=0",)),  # nothing asks for a checkpoint
}
CASES = [(name, plan) for name, way in WAYS.items() for plan in way.plans]


def talk(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"after {LETTERS[number % 25]}?"},
        {"role": "assistant", "content": LETTERS[number % 25 + 1]},
    ]


def made(place: Path, name: str, runner: Runner) -> Path:
    """The folder that the last stage fills."""
    way = WAYS[name]
    asked = {key: str(place / value) if key == "teacher" else value for key, value in way.asked.items()}
    data = place / way.data
    adoption = resolve(Asked(way.recipe, place / "model", data, assignments=(*SETTINGS, *way.more), **asked))
    stages = stages_of(adoption, place / "model", data)
    return runner.run(stages)[stages[-1].name]


def whole(*_: object, **__: object) -> None:
    raise AssertionError("this process would have the whole model")


def on_all(rank: int, place: Path) -> None:
    """Work for `run_on`. Nobody may read a whole model, but to merge an adapter when all is done."""
    from herd.road.adopt import model, teach

    for number, (name, plan) in enumerate(CASES):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)  # groups that come one after the other in one job
        real = model.load_model
        model.load_model = real if name == "adapter" else whole  # type: ignore[assignment]
        teach.load_model = whole  # type: ignore[assignment]
        with processes(parse_plan(plan), "cpu") as mesh:
            assert mesh is not None
            made(place, name, TogetherRunner(place / f"{name} {plan}", mesh))
        model.load_model = real


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, data, and all cases run on two processes."""
    folder = tmp_path_factory.mktemp("adopted")
    save_drawn(folder / "model", shape(dim=32))
    save_drawn(folder / "teacher", shape(dim=64), seed=5)
    write_jsonl(folder / "talks.jsonl", ({"messages": talk(n)} for n in range(40)))
    no = [{"role": "assistant", "content": "no"}]
    pairs = ({"prompt": talk(n)[:1], "chosen": talk(n)[1:], "rejected": no} for n in range(40))
    write_jsonl(folder / "pairs.jsonl", pairs)
    run_on(2, on_all, folder, group=False)
    return folder


@cache
def alone(place: Path, name: str) -> Path:
    return made(place, name, Runner(place / f"{name} alone"))


def found(place: Path, name: str, plan: str) -> Path:
    (folder,) = (place / f"{name} {plan}" / "stages").glob("adopt-*")
    return folder


@pytest.mark.parametrize(("name", "plan"), CASES)
def test_processes_that_share_a_model_make_of_it_what_one_makes(place: Path, name: str, plan: str) -> None:
    one, many = alone(place, name), found(place, name, plan)
    losses = [[row["loss"] for row in read_jsonl(folder / "history.jsonl")] for folder in (many, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    reports = [read_json(folder / "herd.json")["metrics"] for folder in (many, one)]
    for measure in ("before", "learning", "held_out_items"):
        assert reports[0][measure] == pytest.approx(reports[1][measure], rel=1e-4)
    assert reports[0]["kept"] == pytest.approx(reports[1]["kept"], abs=0.05)
    ours, theirs = hf_entries(many / "model"), hf_entries(one / "model")
    assert ours.keys() == theirs.keys()
    for key, entry in theirs.items():
        assert ours[key].dtype == entry.dtype
        torch.testing.assert_close(ours[key].values().float(), entry.values().float(), rtol=2e-2, atol=2e-3)
    assert read_json(many / "model" / "config.json") == read_json(one / "model" / "config.json")
    assert {path.name for path in (many / "model").iterdir()} == {path.name for path in (one / "model").iterdir()}
