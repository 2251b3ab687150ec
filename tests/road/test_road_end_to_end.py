"""The pico recipe from documents to a report, through the command line, and what a user does with the result."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from road_commands import COMMAND, contents, herd, stages, succeed

from herd.weights.hf import load_model

pytestmark = pytest.mark.slow

ONE_THREAD = ("--set", "threads=1")
CAPABILITIES = ("knowledge", "steerability", "math", "tool_use", "translation", "code", "long_context")


@pytest.fixture(scope="session")
def pico(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run and what it printed. Nobody writes here: tests that do take `run`, a copy."""
    folder = tmp_path_factory.mktemp("end-to-end") / "pico"
    return folder, succeed("raise", "pico", "--out", folder, *ONE_THREAD)


@pytest.fixture
def run(pico: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pico[0], tmp_path / "pico", symlinks=True))


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_a_run_leaves_models_a_report_and_nothing_half_done(pico: tuple[Path, str]) -> None:
    folder, told = pico
    assert {path.name for path in folder.iterdir() if path.is_symlink()} == {
        *("flagship-base", "flagship", "flagship-fp8", "small-base", "small-alone", "small"),
        *("report.html", "report.json", "claims.json"),
    }
    assert not list((folder / "work").iterdir())
    assert not [path for path in folder.rglob("*") if ".part" in path.name or path.name.endswith(".old")]
    claims = read(folder / "claims.json")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{sum(row['holds'] for row in claims)} of {len(claims)} claims hold" in told
    assert all(row["name"] in page for row in claims)
    assert page.rstrip().endswith("</html>")


def test_every_stage_says_what_made_it(pico: tuple[Path, str]) -> None:
    found = stages(pico[0])
    assert len(found) > 25
    for name, folder in found.items():
        made = read(folder / "herd.json")
        assert (made["stage"], f"{name}-{made['key']}") == (name, folder.name)
        assert all((pico[0] / "stages" / source / "herd.json").is_file() for source in made["inputs"].values())


def test_the_forecast_was_made_before_the_flagship_was_trained(pico: tuple[Path, str]) -> None:
    found = stages(pico[0])
    forecast, flagship = found["forecast"] / "herd.json", found["flagship-base"] / "herd.json"
    assert forecast.stat().st_mtime_ns < flagship.stat().st_mtime_ns
    assert not any(name.startswith(("flagship", "round")) for name in read(forecast)["inputs"])


def test_the_same_command_again_does_nothing(run: Path) -> None:
    before = contents(run)
    left = run / "work" / stages(run)["flagship-base"].name / "scratch"  # by a kill just after the output was whole
    left.mkdir(parents=True)
    told = succeed("raise", "pico", "--out", run, *ONE_THREAD)
    n_stages = len(stages(run))
    assert f"{n_stages} stages found done" in told
    after = contents(run)
    assert {name for name in before | after if before.get(name) != after.get(name)} <= {".lock"}
    assert not list((run / "work").iterdir())


def test_a_file_where_the_run_should_live_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    done = herd("raise", "pico", "--out", tmp_path / "taken")
    assert done.returncode == 6
    assert "cannot make this folder" in done.stdout
    assert "Traceback" not in done.stdout
    assert (tmp_path / "taken").read_text() == "mine"


def test_the_saved_recipe_is_the_run(run: Path) -> None:
    told = succeed("raise", run / "recipe.json", "--out", run)
    assert f"{len(stages(run))} stages found done" in told


@pytest.mark.parametrize(
    ("setting", "again"),
    [
        ("quantize.keep_last=0", {"flagship-fp8", "scores-flagship-fp8", "fp8-check", "summary"}),
        (
            "small.teach.sft.steps=3",
            {"small-alone", "small-taught", "scores-small-alone", "scores-small-taught", "summary"},
        ),
    ],
)
def test_a_changed_setting_runs_what_depends_on_it_and_nothing_else(run: Path, setting: str, again: set[str]) -> None:
    before = {path.name for path in (run / "stages").iterdir()}
    kept = contents(run / "stages")
    told = succeed("raise", "pico", "--out", run, *ONE_THREAD, "--set", setting)
    new = {path.name for path in (run / "stages").iterdir()} - before
    assert {name.rpartition("-")[0] for name in new} == again
    assert n_found(told) == len(before) - len(again)
    after = contents(run / "stages")
    assert {name: after.get(name) for name in kept} == kept  # what stood there stands there unchanged


def n_found(told: str) -> int:
    """How many stages a run said were done before; it says so in parts, between those that it ran."""
    return sum(map(int, re.findall(r"(\d+) stages found done", told)))


def model_folders(run: Path) -> list[Path]:
    folders = [path for path in stages(run).values() if (path / "config.json").is_file()]
    return [path for path in folders if "quantization_config" not in read(path / "config.json")]


def test_transformers_reads_every_model_and_agrees(pico: tuple[Path, str]) -> None:
    transformers = pytest.importorskip("transformers")
    folders = model_folders(pico[0])
    names = {path.name.rpartition("-")[0] for path in folders}
    assert {"flagship-base", "flagship-start", "round-1", "round-2", "small-base", "small-taught"} <= names
    for folder in folders:
        ours = load_model(folder)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, ours.config.vocab_size, (2, 64), generator=generator)
        with torch.no_grad():
            expected, found = theirs(tokens).logits, ours.logits(ours(tokens))
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max(), folder.name


def test_transformers_reads_the_fp8_model(pico: tuple[Path, str]) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors", reason="transformers reads FP8 folders with compressed-tensors")
    ours = load_model(pico[0] / "flagship-fp8")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(pico[0] / "flagship-fp8", dtype=torch.float32).eval()
    tokens = torch.randint(0, ours.config.vocab_size, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = theirs(tokens).logits, ours.logits(ours(tokens))
    # Scales of activations are rounded differently: three bits of mantissa leave differences of a few percent.
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_transformers_tokenises_as_the_models_were_trained(pico: tuple[Path, str]) -> None:
    transformers = pytest.importorskip("transformers")
    from herd.text import Tokenizer

    theirs = transformers.AutoTokenizer.from_pretrained(pico[0] / "flagship")
    ours = Tokenizer.load(pico[0] / "flagship")
    for text in ("How far is it?", "Schöne Grüße, ça va ?", "ที่ไหน", "कितना 12,345"):
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)


def chat(folder: Path, lines: str) -> str:
    done = subprocess.run(
        [*COMMAND, "chat", str(folder), "--max-tokens", "12", "--seed", "3"],
        input=lines,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_lines_piped_into_chat_are_answered(pico: tuple[Path, str]) -> None:
    questions = "Hello, where is the mill?\n" * 3
    few, more = chat(pico[0] / "small", questions), chat(pico[0] / "small", questions + "And the bridge?\n/help\n")
    assert few.strip()
    assert more.startswith(few)  # the same seed and lines, the same answers
    assert "/reset" not in few
    assert "/reset" in more


@pytest.mark.parametrize("name", ["round-2", "flagship-base"])
def test_evaluate_gives_the_scores_of_the_report(pico: tuple[Path, str], tmp_path: Path, name: str) -> None:
    found = stages(pico[0])
    told = succeed("evaluate", found[name], "--out", tmp_path)
    expected = read(found[f"scores-{name}"] / "herd.json")["metrics"]
    rows = {cells[0]: cells[1] for cells in (row.replace("│", " ").split() for row in told.splitlines()) if cells[1:]}
    assert {key: rows[key] for key in CAPABILITIES} == {key: f"{expected[key]:.1%}" for key in CAPABILITIES}
    assert rows["average"] == f"{expected['average']['value']:.1%}"
    assert list(tmp_path.rglob("results_*.json"))
    assert list(tmp_path.rglob("samples_*.jsonl"))
