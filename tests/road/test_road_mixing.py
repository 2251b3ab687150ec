"""Who gets how much of the mix: named sources what they ask, a user's documents a share that cannot be too much."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.cli import main
from herd.corpus.mix import SourceShare
from herd.errors import SettingError
from herd.paddock.noise import SOURCE as PLANTED
from herd.recipe import MixSettings
from herd.road.mixing import MOST_READINGS, READINGS, bounded, expected, notes, shares

SETTINGS = MixSettings(weights={"paddock": 0.9, "docs": 0.1}, other=0.25, tokens=1000)


def test_sources_without_a_name_divide_what_is_left_for_all_of_them() -> None:
    few = shares(SETTINGS, ["paddock", "docs", "mine"])
    assert few == pytest.approx({"paddock": 0.72, "docs": 0.08, "mine": 0.2})
    many = shares(SETTINGS, ["paddock", "docs", *(f"mine-{n}" for n in range(30))])
    assert sum(share for source, share in many.items() if source.startswith("mine")) == pytest.approx(0.2)


def test_a_corpus_of_named_sources_keeps_its_shares_to_the_bit() -> None:
    available = {"paddock": 10, "docs": 3}  # far too little: asked for by name, and read again and again
    assert bounded(replace(SETTINGS, tokens=2000), available) == shares(SETTINGS, available)


def test_a_handful_of_pages_is_not_learnt_by_heart() -> None:
    """20 tokens of a user in a mix of 1,000: not 10 times to fill a share of 20 %, and the others take the rest."""
    weights = bounded(SETTINGS, {"paddock": 900, "docs": 900, "mine": 20})
    assert weights["mine"] == pytest.approx(READINGS * 20 / 1000)
    assert weights["paddock"] / weights["docs"] == pytest.approx(9)
    named = replace(SETTINGS, weights={**SETTINGS.weights, "mine": 0.25})
    assert bounded(named, {"paddock": 900, "docs": 900, "mine": 20})["mine"] == pytest.approx(0.2)


def test_planted_pages_that_stayed_are_read_only_by_name() -> None:
    available = {"paddock": 900, "docs": 900, PLANTED: 50}
    weights = bounded(SETTINGS, available)
    assert weights == {**bounded(SETTINGS, {"paddock": 900, "docs": 900}), PLANTED: 0}
    assert notes(SETTINGS, [SourceShare(name, share, 9, 9, 1, 1.0) for name, share in weights.items()]) == []
    mine = bounded(SETTINGS, {**available, "mine": 900})
    assert (mine[PLANTED], mine["mine"]) == (0, pytest.approx(0.2))
    named = replace(SETTINGS, weights={"paddock": 0.9, PLANTED: 0.1})
    assert bounded(named, {"paddock": 900, PLANTED: 50})[PLANTED] == pytest.approx(0.1)


def test_where_no_source_has_a_name_all_are_read_as_often_as_it_takes() -> None:
    assert bounded(SETTINGS, {"mine": 20, "yours": 20}) == {"mine": 0.5, "yours": 0.5}


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(20, 10**6), min_size=1),
    st.integers(20, 10**6),
    st.floats(0.01, 100),
)
def test_shares_sum_to_one_and_nothing_without_a_name_is_read_too_often(
    unnamed: dict[str, int], paddock: int, other: float
) -> None:
    settings = replace(SETTINGS, other=other, tokens=10_000)
    available = {"paddock": paddock, **unnamed}
    weights = bounded(settings, available)
    assert sum(weights.values()) == pytest.approx(1)
    readings = {source: weights[source] * settings.tokens / available[source] for source in available}
    limit = max(READINGS, readings["paddock"])
    assert all(readings[source] <= limit * (1 + 1e-9) for source in unnamed)


def test_a_mix_far_beyond_its_documents_is_refused_with_the_count() -> None:
    with pytest.raises(SettingError, match=r"read the source 'paddock' .* times: it has 500 tokens") as told:
        bounded(replace(SETTINGS, tokens=10**15), {"paddock": 500})
    assert told.value.where == "mix.tokens"
    bounded(replace(SETTINGS, tokens=500 * MOST_READINGS), {"paddock": 500})


def test_notes_say_what_a_user_would_not_see() -> None:
    settings = replace(SETTINGS, weights={"paddock": 0.9, "misspelt": 0.1})
    mixed = [SourceShare("paddock", 0.9, 900, 900, 9, 1.0)]
    mixed += [SourceShare(f"mine-{n}", 0.1 / 7, 10, 40, 4, 4.0 + n) for n in range(7)]
    absent, unnamed, often = notes(settings, mixed)
    assert absent == "mix.weights names misspelt, and no document of the corpus comes from there"
    assert "(mine-0, mine-1, mine-2, mine-3, mine-4 and 2 more) have 10.0% of the mix, not the 21.7%" in unnamed
    assert often.startswith("small for their share, and read again: mine-6 10.0 times, mine-5 9.0 times")
    assert often.endswith("and 2 more")
    assert notes(SETTINGS, [SourceShare(name, 0.5, 9, 9, 1, 1.0) for name in ("paddock", "docs")]) == []


def test_the_line_before_a_run() -> None:
    assert expected(SETTINGS, ["paddock", "docs"], others=False) == "paddock 90.0%, docs 10.0%"
    assert expected(SETTINGS, ["paddock", "docs"], others=True).startswith(
        "paddock 72.0%, docs 8.0%, whatever is not named 20.0% (your documents"
    )


def test_a_dry_run_tells_the_share_of_a_users_documents(tmp_path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("Some words of mine.")
    line = "mix of sources: paddock 85.0%, stdlib-docs 8.0%, stdlib-code 7.0%"
    assert main(["raise", "pico", "--dry-run"]) == 0
    assert line in capsys.readouterr().out.splitlines()
    weights = json.dumps({"paddock": 0.6, "mine": 0.2})
    arguments = ["--documents", str(tmp_path), "--set", f"mix.weights={weights}", "--set", "mix.other=0.2"]
    assert main(["raise", "pico", "--dry-run", *arguments]) == 0
    assert "mix of sources: paddock 60.0%, mine 20.0%, whatever is not named 20.0% (" in capsys.readouterr().out
