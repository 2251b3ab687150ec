"""`herd plan` as a user meets it: a table, JSON with its keys, a picture, refusals in words."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from plan_jobs import SMALL

from herd.cli import main
from herd.weights.config_json import to_hf


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["plan", *words]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "llama31-8b", "--gpus", "16")
    for word in (
        "MFU",
        "memory",
        "GiB",
        "days",
        "effective training",
        "interruptions",
        "checkpoint",
        "MWh",
        "next best",
    ):
        assert word in told, word


def test_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("llama31-405b", "--gpus", "16384", "--layout", "tp=8,cp=1,pp=16,dp=128,virtual=8", "--json")
    found = json.loads(said(capsys, *words))
    assert found["mfu"] == pytest.approx(0.41, abs=0.02)
    assert found["layout"]["tp"] == 8
    assert found["layout"]["microbatches"] == 16
    assert sum(found["parts"].values()) == pytest.approx(found["step_seconds"])
    assert 40 < found["memory_gib"]["total"] < found["memory_gib"]["of"] == 80
    assert found["days"] > found["days_without_interruptions"] > 50
    assert found["effective_training_time"] > 0.9
    assert found["checkpoint"]["bytes"] == 12 * 405_853_388_800
    assert found == json.loads(said(capsys, *words))  # a seed decides what is drawn


def test_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "plan.svg"
    said(capsys, "llama31-70b", "--gpus", "64", "--layout", "pp=4,tp=8", "--picture", str(out))
    root = ElementTree.fromstring(out.read_text(encoding="utf-8"))
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if word.startswith("rank")] == [f"rank {rank}" for rank in range(4)]
    assert any(word.startswith("activations") for word in words)
    assert out.stat().st_size < 200_000


@pytest.mark.parametrize("name", ["nano", "llama31_8b"])
def test_recipes(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert json.loads(said(capsys, name, "--gpus", "2", "--json"))["mfu"] > 0


def test_a_folder_and_its_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(to_hf(SMALL, "float32")), encoding="utf-8")
    rest = ("--gpus", "1", "--seq", "1024", "--batch-tokens", "8192", "--json")
    for path in (tmp_path, tmp_path / "config.json"):
        assert json.loads(said(capsys, str(path), *rest))["parameters"] == SMALL.parameters()


def test_serving(capsys: pytest.CaptureFixture[str]) -> None:
    held = json.loads(said(capsys, "llama31-405b", "--serve", "--json"))["held"]
    assert {one["precision"]: one["nodes"] for one in held}["bf16"] == 2
    assert "t/s" in said(capsys, "llama31-8b", "--serve", "--gpu", "a100", "--context", "131072")


def test_the_fewest_gpus_within_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    rest = ("--tokens", "1e12", "--json")
    found = json.loads(said(capsys, "llama31-8b", "--budget-days", "10", *rest))
    assert found["days"] <= 10
    half = json.loads(said(capsys, "llama31-8b", "--gpus", str(found["gpus"] // 2), *rest))
    assert half["days"] > 10
    assert "over the budget" in said(capsys, "llama31-8b", "--gpus", "8", "--budget-days", "10", *rest[:2], code=2)


def test_published_rows(capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "--published")
    assert told.count("torchtitan, ") == 24
    assert told.count("Llama 3 paper") == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no model is named"),
        (["llama31-405"], "did you mean 'llama31-405b'?"),
        (["llama31-8b", "--gpu", "h900"], "did you mean"),
        (["llama31-8b", "--gpu", "cpu"], "herd plan --measure"),
        (["llama31-8b", "--network", "wet-string"], "a network that the planner knows"),
        (["llama31-8b", "--gpu", "a100", "--fp8"], "a100 has no FP8 products"),
        (["llama31-8b", "--watts", "50"], "no power limit"),
        (["llama31-8b", "--gpus", "-1"], "1 to 1,048,576"),
        (["llama31-8b", "--gpus", "8", "--tokens", "nan"], "0 (left out)"),
        (["llama31-8b", "--seq", "1000", "--batch-tokens", "9999"], "a multiple of seq_len"),
        (["llama31-8b", "--seq", "262144"], "at most 131,072"),
        (["llama31-405b", "--gpus", "8"], "give 128 GPUs"),
        (["llama31-405b", "--budget-days", "1"], "no number of h100"),
        (["llama31-405b", "--gpus", "16", "--layout", "tp=3"], "tp can be 1, 2, 4, 8"),
        (["llama31-405b", "--gpus", "16384", "--layout", "pp=9"], "no layout of 16,384 GPUs with pp=9"),
        (["llama31-8b", "--gpus", "8", "--layout", "tp=8,dp=2,cp=1,pp=1"], "must be 8"),
        (["llama31-8b", "--gpus", "8", "--layout", "frog=3"], "'frog' is not an option"),
        (["llama31-8b", "--gpus", "8", "--layout", "frog"], "write AXIS=NUMBER"),
        (["llama31-405b", "--serve", "--gpus", "4"], "give 6 GPUs or more"),
        (["llama31-8b", "--serve", "--context", "200000"], "a context of 200,000 tokens"),
    ],
)
def test_what_cannot_be_planned_is_said_in_words(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    error = said(capsys, *words, code=2)
    assert told in error
    assert "Traceback" not in error
