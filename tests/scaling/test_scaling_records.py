"""Records survive the disk, bad lines are named, budgets are told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from herd.errors import ArtifactError, FormatError, InputError
from herd.scaling.records import Cost, RunRecord, budgets, load_records, save_records

GOOD = {"n_params": 10, "n_params_body": 8, "tokens": 100, "flops": 6000.0, "loss": 3.0}


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    records = [RunRecord(10, 8, 100, 6000.0, 3.0, {"dim": 4}, 7), RunRecord(20, 16, 50, 6000.0, 3.5)]
    assert save_records(tmp_path / "runs.jsonl", records) == 2
    assert load_records(tmp_path / "runs.jsonl") == records


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({**GOOD, "loss": float("nan")}, "loss"),
        ({**GOOD, "tokens": 0}, "tokens"),
        ({**GOOD, "n_params_body": 11}, "body"),
        ({**GOOD, "los": 3.0}, "los"),
        ({key: GOOD[key] for key in GOOD if key != "flops"}, "flops"),
        ({**GOOD, "flops": "many"}, "flops"),
        ({**GOOD, "seed": True}, "seed"),
        ({**GOOD, "shape": [1]}, "shape"),
        ([1, 2], "object"),
    ],
)
def test_a_bad_record_is_named_with_its_place(tmp_path: Path, row: object, names: str) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(FormatError, match=names) as caught:
        load_records(path)
    assert "record 2" in caught.value.where


def test_cut_and_missing_files_are_errors_that_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(GOOD)[:-9])
    with pytest.raises(FormatError) as caught:
        load_records(path)
    assert str(path) in caught.value.where
    with pytest.raises(ArtifactError):
        load_records(tmp_path / "none.jsonl")


def test_a_record_checks_itself() -> None:
    with pytest.raises(InputError, match="loss"):
        RunRecord(10, 8, 100, 6000.0, -1.0)


def test_budgets_group_runs_that_differ_by_rounding() -> None:
    flops = [2.05e12, 1.0e12, 1.03e12, 1.97e12, 0.98e12]
    groups = budgets([RunRecord(10, 8, 100, value, 3.0) for value in flops])
    assert [len(group) for group in groups.values()] == [3, 2]
    assert list(groups) == pytest.approx([1.003e12, 2.01e12], rel=0.01)


def test_cost_finds_six_n_d_and_other_powers() -> None:
    n, d = [1e6, 4e6, 1e7], [1e9, 5e8, 2e8]
    six = Cost.measure(n, d, [6 * a * b for a, b in zip(n, d, strict=True)])
    assert (six.factor, six.power) == pytest.approx((6.0, 1.0))
    other = Cost.measure(n, d, [50 * a**0.9 * b for a, b in zip(n, d, strict=True)])
    assert (other.factor, other.power) == pytest.approx((50.0, 0.9))
    assert other.size(other.flops(3e6, 7e8), 7e8) == pytest.approx(3e6)
    assert Cost.measure([1e6, 1e6], [1e9, 2e9], [6e15, 1.2e16]).power == 1.0
