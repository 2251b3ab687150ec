"""Every claim of a run, true and false, left out where its stages are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from summary_run import GOOD, KINDS, Run, make_run, result

from herd.errors import ArtifactError, InputError
from herd.evaluate.statistics import wilson
from herd.paddock.settings import CAPABILITIES
from herd.report.claims import Claim
from herd.road.summary.claims import claims
from herd.road.summary.folders import Folders

ALL = {
    "flagship_loss_predicted",
    "flagship_beats_small",
    "every_round_raises_the_suite",
    "flagship_averages_70",
    "no_capability_under_50",
    "teaching_gains_5_points",
    "fp8_within_interval",
    *(f"curation_recall_{kind}" for kind in KINDS),
    "clean_pages_kept",
    "held_out_is_disjoint",
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("good"))


@pytest.fixture
def run(good: Run, tmp_path: Path) -> Run:
    """A good run that a test may spoil."""
    return good.copy(tmp_path)


@pytest.fixture
def unscored(run: Run) -> Run:
    """The same without scores: quick, for the claims that need none."""
    run.drop(*(f"scores-{model}" for model in GOOD))
    return run


def of(run: Run, allowed: float = 0.05) -> dict[str, Claim]:
    return {claim.name: claim for claim in claims(Folders("nano", run.paths), allowed)}


def failing(run: Run) -> set[str]:
    return {name for name, claim in of(run).items() if not claim.holds}


def rescored(run: Run, scores: dict[str, float]) -> Run:
    for model, share in scores.items():
        run.rescore(model, result(share))
    return run


def test_all_claims_are_there_and_hold_in_a_good_run(run: Run) -> None:
    found = of(run)
    assert set(found) == ALL
    assert not failing(run)


def test_every_command_raises_the_run_and_names_a_file_that_is_there(run: Run) -> None:
    for claim in of(run).values():
        raising, _, showing = claim.command.partition(" && python -m json.tool runs/nano/")
        assert raising == "herd raise nano"
        assert len(list(run.root.glob(showing))) == 1, claim.command


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (
            {"round-2": 0.60, "flagship-fp8": 0.60, "small-taught": 0.45},
            {"every_round_raises_the_suite", "flagship_averages_70"},
        ),
        ({"round-1": 0.60}, {"every_round_raises_the_suite"}),  # a rise of nothing is none
        ({"small-taught": 0.425}, {"teaching_gains_5_points"}),
        ({"small-taught": 1.00}, {"flagship_beats_small"}),  # intervals apart is not enough: it must be above
        ({"small-taught": 0.84}, {"flagship_beats_small"}),
        ({"flagship-fp8": 0.70}, {"fp8_within_interval"}),
        ({"flagship-fp8": 1.0}, {"fp8_within_interval"}),  # better, too, is a change
    ],
)
def test_scores_that_do_not_show_a_claim(run: Run, scores: dict[str, float], expected: set[str]) -> None:
    assert failing(rescored(run, scores)) == expected


def test_exactly_at_the_bar_holds(run: Run) -> None:
    rescored(run, {"round-1": 0.65, "round-2": 0.70, "flagship-fp8": 0.70, "small-taught": 0.45})
    assert not failing(run)
    assert "+5.0 points" in str(of(run)["teaching_gains_5_points"].measured)


def test_one_weak_capability_is_named(run: Run) -> None:
    weak = dict.fromkeys(CAPABILITIES, 0.9) | {"math": 0.475}
    run.rescore("round-2", result(weak))
    run.rescore("flagship-fp8", result(weak))
    claim = of(run)["no_capability_under_50"]
    assert not claim.holds
    assert claim.measured == "the lowest of 7 is math with 47.5 %"
    expected = wilson(19, 40)
    assert claim.interval == (round(100 * expected.low, 2), round(100 * expected.high, 2))


def test_the_chain_of_rounds_is_told_from_the_base_on(run: Run) -> None:
    told = str(of(run)["every_round_raises_the_suite"].measured)
    steps = "flagship-base 5.0 % → flagship-start 60.0 % → round-1 75.0 % → round-2 85.0 %"
    assert told == f"{steps}; least rise of a round (round-2), paired, +10.0 points"


def test_base_above_start_fails_nothing(run: Run) -> None:
    assert not failing(rescored(run, {"flagship-base": 0.65}))


@pytest.mark.parametrize(
    ("loss", "holds", "told"),
    [(2.0, True, "error 2.0 %"), (1.9, False, "error 7.4 %"), (2.3, False, "error 11.3 %")],
)
def test_prediction_of_the_loss(unscored: Run, loss: float, holds: bool, told: str) -> None:
    unscored.change("flagship-base", "herd.json", lambda made: made["metrics"].update(validation_loss=loss))
    claim = of(unscored)["flagship_loss_predicted"]
    assert claim.holds is holds
    assert told in str(claim.measured)
    assert claim.interval == (1.9, 2.2)


def test_the_recipe_decides_how_much_error_is_allowed(unscored: Run) -> None:
    assert not of(unscored, 0.01)["flagship_loss_predicted"].holds


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), None])
def test_a_loss_that_is_no_number_was_not_predicted(unscored: Run, loss: float | None) -> None:
    unscored.change("flagship-base", "herd.json", lambda made: made["metrics"].update(validation_loss=loss))
    assert not of(unscored)["flagship_loss_predicted"].holds


def test_a_refused_fit_is_a_claim_that_does_not_hold(unscored: Run) -> None:
    unscored.change("forecast", "forecast.json", lambda _: {"refused": "the runs do not bend", "mend": "wider"})
    claim = of(unscored)["flagship_loss_predicted"]
    assert not claim.holds
    assert "the runs do not bend" in str(claim.measured)
    assert claim.interval is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_was_missed(unscored: Run, kind: str) -> None:
    unscored.change("corpus", "planted.json", lambda found: found["kinds"][kind].update(caught=37))
    assert failing(unscored) == {f"curation_recall_{kind}"}
    claim = of(unscored)[f"curation_recall_{kind}"]
    assert claim.measured == "37 of 40 caught: 92.5 %"
    expected = wilson(37, 40)
    assert claim.interval == (round(100 * expected.low, 2), round(100 * expected.high, 2))


def test_a_kind_that_was_not_planted_is_left_out(run: Run) -> None:
    run.change("corpus", "planted.json", lambda found: found["kinds"]["pii"].update(planted=0, caught=0, recall=None))
    assert set(of(run)) == ALL - {"curation_recall_pii"}


def test_throwing_good_pages_away(unscored: Run) -> None:
    unscored.change("corpus", "planted.json", lambda found: found.update(clean_kept=0.9))
    assert failing(unscored) == {"clean_pages_kept"}


@pytest.mark.parametrize("proof", [{"overlaps": 1}, {"checked": 0}])
def test_held_out_that_is_not_proven(unscored: Run, proof: dict[str, int]) -> None:
    unscored.change("world", "disjoint.json", lambda found: found.update(proof))
    assert failing(unscored) == {"held_out_is_disjoint"}


def test_fp8_says_what_it_saves(run: Run) -> None:
    assert "3 kB of 10 kB saved (30.0 %)" in str(of(run)["fp8_within_interval"].measured)


def test_fp8_weighs_the_folders_where_the_check_is_missing(run: Run) -> None:
    run.drop("fp8-check")
    claim = of(run)["fp8_within_interval"]
    assert claim.holds
    assert "300 B of 1 kB saved (30.0 %)" in str(claim.measured)


def test_fp8_without_bytes_does_not_hold(run: Run) -> None:
    run.drop("fp8-check")
    (run.paths["flagship-fp8"] / "model.safetensors").unlink()
    assert failing(run) == {"fp8_within_interval"}


SCORED = {name for name in ALL if name.startswith(("flagship_b", "flagship_a", "every", "no_cap", "teach", "fp8"))}


@pytest.mark.parametrize(
    ("dropped", "missing"),
    [
        (["forecast"], {"flagship_loss_predicted"}),
        (["small-taught", "scores-small-taught"], {"flagship_beats_small", "teaching_gains_5_points"}),
        (["small-alone", "scores-small-alone"], {"teaching_gains_5_points"}),
        (["flagship-fp8", "scores-flagship-fp8", "fp8-check"], {"fp8_within_interval"}),
        (["round-1", "round-2", "scores-round-1", "scores-round-2"], {"every_round_raises_the_suite"}),
        (["world"], {"held_out_is_disjoint"}),
        ([f"scores-{model}" for model in GOOD], SCORED),
    ],
)
def test_a_smaller_recipe_leaves_claims_out(run: Run, dropped: list[str], missing: set[str]) -> None:
    run.drop(*dropped)
    assert ALL - set(of(run)) == missing


def test_no_stages_no_claims() -> None:
    assert claims(Folders("nano", {}), 0.05) == ()


@pytest.mark.parametrize(
    ("stage", "file"),
    [("forecast", "forecast.json"), ("world", "disjoint.json"), ("corpus", "report.json"), ("round-1", "round.json")],
)
def test_a_claim_does_not_vanish_with_its_file(run: Run, stage: str, file: str) -> None:
    from herd.road.summary.stage import report_data

    (run.paths[stage] / file).unlink()
    with pytest.raises(ArtifactError, match=file):
        report_data(Folders("nano", run.paths), 0.05)


def test_ten_rounds_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = {f"round-{number}": tmp_path for number in (10, 9, 1, 2)}
    folders = Folders("nano", names)
    assert folders.rounds == ("round-1", "round-2", "round-9", "round-10")
    assert folders.flagship == "round-10"


def test_scores_of_other_items_are_not_compared(run: Run) -> None:
    from summary_run import without_half

    run.rescore("small-taught", without_half(result(0.9)))
    with pytest.raises(InputError, match="same items"):
        of(run)
