"""Result files: the harness's layout, the same bytes for the same date, and nothing damaged is read in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from evaluate_herd import TASKS, Parrot, result, tokenizer

from herd.errors import ArtifactError, FormatError
from herd.evaluate.harness import RunInfo, load_results, save_results
from herd.evaluate.suite import Suite, SuiteResult, run_suite

DATE = datetime(2024, 7, 23, 10, 30, 0, 123456, tzinfo=UTC)
INFO = RunInfo("runs/nano/flagship", DATE, git_hash="abc1234", seconds=1.5)


def evaluated() -> SuiteResult:
    known = tokenizer()
    replies = {"France?": "Paris", "Peru?": "Quito", "ฝรั่งเศส": "ปารีส"}
    return run_suite(Parrot(known, replies), known, Suite("herd", "1", TASKS))


def test_the_layout_is_the_harness_s(tmp_path: Path) -> None:
    path = save_results(tmp_path, evaluated(), INFO)
    assert path.name == "results_2024-07-23T10-30-00.123456.json"
    data = json.loads(path.read_text())
    # result_schema.py of lm-evaluation-harness
    expected = {
        *("results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples"),
        *("config", "git_hash", "date", "pretty_env_info", "lm_eval_version", "task_hashes", "model_source"),
        *("model_name", "model_name_sanitized", "fewshot_as_multiturn", "chat_template_sha"),
        *("system_instruction_sha", "total_evaluation_time_seconds"),
    }
    assert expected <= data.keys()
    assert data["group_subtasks"] == {
        "herd": ["herd_knowledge", "herd_math"],
        "herd_knowledge": ["herd_knowledge_en", "herd_knowledge_th"],
        "herd_math": ["herd_math_en"],
    }
    knowledge = data["results"]["herd_knowledge"]
    assert knowledge["exact_match,none"] == pytest.approx(2 / 3)
    assert knowledge["exact_match_stderr,none"] == pytest.approx((2 / 9 / 2) ** 0.5)
    assert data["results"]["herd"]["exact_match,none"] == pytest.approx(1 / 3)
    assert data["results"]["herd_math_en"]["exact_match_stderr,none"] == "N/A"
    assert data["n-samples"]["herd_knowledge_en"] == {"original": 2, "effective": 2}
    assert data["higher_is_better"]["herd_math"] == {"exact_match": True}
    assert data["date"] == DATE.timestamp()
    assert data["model_name_sanitized"] == "runs__nano__flagship"


def test_samples_have_the_harness_s_fields(tmp_path: Path) -> None:
    save_results(tmp_path, evaluated(), INFO)
    files = sorted(path.name for path in tmp_path.glob("samples_*"))
    assert files == [f"samples_herd_{name}_2024-07-23T10-30-00.123456.jsonl" for name in ("knowledge", "math")]
    rows = [json.loads(line) for line in (tmp_path / files[0]).read_text().splitlines()]
    assert [row["doc_id"] for row in rows] == [0, 1, 2]
    assert rows[2]["resps"] == [["ปารีส"]]
    assert rows[2]["doc"] == {"id": "k-th-1", "capability": "knowledge", "lang": "th"}
    fields = {"target", "arguments", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash"}
    assert fields <= rows[0].keys()
    assert rows[0]["arguments"]["gen_args_0"]["arg_0"].startswith("<|begin_of_text|>")


@pytest.mark.parametrize("made", [evaluated(), result({"math-en-1": True, "math-de-1": False, "code-en-1": True})])
def test_what_was_saved_is_read_back(tmp_path: Path, made: SuiteResult) -> None:
    path = save_results(tmp_path, made, INFO)
    assert load_results(path) == made
    assert load_results(tmp_path) == made


def test_the_same_date_gives_the_same_bytes_in_every_time_zone(tmp_path: Path) -> None:
    elsewhere = RunInfo(INFO.model, DATE.astimezone(timezone(timedelta(hours=7))), INFO.git_hash, seconds=1.5)
    first = save_results(tmp_path / "a", evaluated(), INFO)
    second = save_results(tmp_path / "b", evaluated(), elsewhere)
    assert first.name == second.name
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def edit(path: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("results"), "lacks results"),
        (lambda d: d.pop("herd"), "without herd's part"),
        (lambda d: d["herd"].update(layout=99), "without herd's part"),
        (lambda d: d["herd"].pop("sampling"), "malformed"),
        (lambda d: d["herd"]["order"].pop(), "same items"),
        (lambda d: d["results"]["herd_math"].update({"exact_match,none": 0.9}), "herd_math: the results say 0.9"),
        (lambda d: d["task_hashes"].update(herd_math="0"), "not those of the results"),
    ],
)
def test_damaged_results_are_refused(tmp_path: Path, change: Callable[[dict], object], message: str) -> None:  # type: ignore[type-arg]
    path = save_results(tmp_path, evaluated(), INFO)
    edit(path, change)
    with pytest.raises(FormatError, match=message):
        load_results(path)


def test_truncated_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = save_results(tmp_path, evaluated(), INFO)
    samples = next(tmp_path.glob("samples_herd_knowledge_*"))
    whole = samples.read_text()
    samples.write_text(whole[: len(whole) // 2])
    with pytest.raises(FormatError):
        load_results(path)
    samples.write_text("\n".join(whole.splitlines()[:-1]))
    with pytest.raises(FormatError, match="not those"):
        load_results(path)
    samples.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        load_results(path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(FormatError, match="JSON"):
        load_results(path)
    path.write_text("[]")
    with pytest.raises(FormatError, match="not an object"):
        load_results(path)


def test_a_folder_must_hold_one_result(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds 0"):
        load_results(tmp_path)
    save_results(tmp_path, evaluated(), INFO)
    save_results(tmp_path, evaluated(), RunInfo("m", DATE + timedelta(days=1)))
    with pytest.raises(ArtifactError, match="holds 2"):
        load_results(tmp_path)
