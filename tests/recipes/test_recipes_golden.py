"""Every recipe, printed in full, against a kept file: a changed default shows in the diff of whoever changed it.

HERD_WRITE_GOLDEN=1 rewrites the files.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from herd.config import from_plain, load, save, to_plain
from herd.errors import SettingError
from herd.llama.config import llama31_8b, llama31_70b, llama31_405b
from herd.recipe import Recipe
from herd.recipes import RECIPES, find
from herd.road.graph import herd_of
from herd.stages import ordered
from herd.train.schedule import lr_at

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_as_it_was(name: str) -> None:
    text = json.dumps(to_plain(find(name)), indent=1, ensure_ascii=False) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("HERD_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, f"{name} changed: HERD_WRITE_GOLDEN=1 keeps the new one"


@pytest.mark.parametrize("name", RECIPES)
def test_saved_recipe_is_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = find(name)
    assert from_plain(Recipe, to_plain(recipe)) == recipe
    save(tmp_path / "recipe.json", to_plain(recipe))
    assert load(tmp_path / "recipe.json", Recipe) == find(str(tmp_path / "recipe.json")) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_graph_of_recipe_runs_inputs_first(name: str) -> None:
    herd = herd_of(find(name))
    assert ordered(herd.stages) == list(herd.stages)
    assert len({stage.folder for stage in herd.stages}) == len(herd.stages)
    assert herd.stages[-1] is herd.summary
    assert herd.names["flagship"] in herd.stages


def test_forecast_is_made_before_the_flagship_and_reads_nothing_of_it() -> None:
    names = [stage.name for stage in herd_of(find("nano")).stages]
    assert names.index("forecast") < names.index("flagship-base")
    forecast = herd_of(find("nano")).stage("forecast")
    assert forecast is not None
    assert all(stage.name.startswith("ladder-") for stage in forecast.inputs.values())


@pytest.mark.parametrize(
    ("name", "preset"), [("llama31_8b", llama31_8b), ("llama31_70b", llama31_70b), ("llama31_405b", llama31_405b)]
)
def test_released_sizes(name: str, preset) -> None:  # type: ignore[no-untyped-def]
    recipe = find(name)
    assert recipe.flagship.shape.config(recipe.tokenizer.vocab_size) == preset()


def test_405b_follows_the_published_schedule_across_its_phases() -> None:
    recipe = find("llama31_405b")
    first, second, third = recipe.flagship.pretrain[:3]
    assert (first.batch_tokens, second.batch_tokens, third.batch_tokens) == (2**22, 2**23, 2**24)
    assert (first.seq_len, second.seq_len, third.seq_len) == (4096, 8192, 8192)
    assert first.steps * first.batch_tokens == pytest.approx(252e6, rel=0.01)
    assert recipe.flagship.tokens() == pytest.approx(15.6e12, rel=0.01)
    assert lr_at(second, 8000 - first.steps) == pytest.approx(8e-5)
    end_of_second, start_of_third = lr_at(second, second.steps), lr_at(third, 1)
    assert start_of_third == pytest.approx(end_of_second, rel=1e-4)
    assert start_of_third < end_of_second
    assert recipe.flagship.pretrain[-1].seq_len == 131_072
    assert lr_at(recipe.flagship.pretrain[-1], recipe.flagship.pretrain[-1].steps) == 0
    assert len(recipe.posttrain.rounds) == 6  # type: ignore[union-attr]


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(SettingError) as found:
        find("nanno")
    assert "nano" in found.value.mend


def test_missing_recipe_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no such recipe file"):
        find(str(tmp_path / "gone.json"))
