"""claims.json: written as promised, read back equal, and refused where it cannot be meant."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from herd.errors import ArtifactError, FormatError
from herd.report.claims import Claim, read_claims, write_claims

GOOD = Claim("recall", "at least 0.95", 0.97, (0.95, 0.99), True, "herd curate")


def test_the_keys_are_the_promised_ones(tmp_path: Path) -> None:
    write_claims(tmp_path / "claims.json", [GOOD, Claim("why", "a sentence", "two words", None, False, "")])
    rows = json.loads((tmp_path / "claims.json").read_text())
    assert list(rows[0]) == ["name", "expected", "measured", "interval", "holds", "command"]
    assert rows[0]["interval"] == [0.95, 0.99]
    assert rows[1]["measured"] == "two words"


def test_claims_come_back_equal(tmp_path: Path) -> None:
    claims = (GOOD, Claim("b", "x", "text", None, False, "run"), Claim("c", "x", 3, (1, 5), True, ""))
    write_claims(tmp_path / "claims.json", claims)
    assert read_claims(tmp_path / "claims.json") == claims


def test_a_missing_measurement_is_null_and_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    write_claims(path, [replace(GOOD, measured=math.nan, holds=False)])
    assert read_claims(path)[0].measured is None
    for missing in (math.nan, math.inf, None, ""):
        with pytest.raises(FormatError, match="without a measurement"):
            write_claims(path, [replace(GOOD, measured=missing)])


@pytest.mark.parametrize(
    ("claim", "fault"),
    [
        (replace(GOOD, interval=(0.99, 0.95)), "interval"),
        (replace(GOOD, interval=(0.9, math.nan)), "interval"),
        (replace(GOOD, name=" "), "name"),
        (replace(GOOD, expected=""), "expected"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(tmp_path: Path, claim: Claim, fault: str) -> None:
    path = tmp_path / "claims.json"
    write_claims(path, [GOOD])
    with pytest.raises(FormatError, match=fault):
        write_claims(path, [claim])
    assert read_claims(path) == (GOOD,)


def test_two_claims_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="same name"):
        write_claims(tmp_path / "claims.json", [GOOD, GOOD])


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[",
        "[3]",
        '[{"name": "a"}]',
        '[{"name": "a", "expected": "b", "measured": 1, "interval": [1], "holds": true, "command": ""}]',
        '[{"name": "a", "expected": "b", "measured": 1, "interval": null, "holds": "yes", "command": ""}]',
        '[{"name": "a", "expected": "b", "measured": true, "interval": null, "holds": true, "command": ""}]',
        '[{"nam": "a", "expected": "b", "measured": 1, "interval": null, "holds": true, "command": ""}]',
    ],
)
def test_a_file_that_is_not_a_list_of_claims_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claims.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError):
        read_claims(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"claims\.json"):
        read_claims(tmp_path / "claims.json")
