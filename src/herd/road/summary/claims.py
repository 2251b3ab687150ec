"""What a run must show, each claim decided from the numbers that stages left: holds or not, never "almost".

A claim whose stages a recipe does not have is left out. One whose stages ran and measured nothing usable (a refused
fit, a loss that is not a number) stands there and does not hold. `measured` ends with the number that `interval` is
around, and the two share its unit.
"""

from __future__ import annotations

from herd.report.claims import Claim
from herd.report.numbers import count, percent, plain
from herd.road.summary.corpus import planted
from herd.road.summary.folders import Folders
from herd.road.summary.scored_claims import hundredths, scored_claims
from herd.road.summary.training import reached_loss, relative_error

RECALL = 0.95  # of each kind of planted page; all rules see them, for their source has no trusted name
CLEAN_KEPT = 0.95  # of the good pages: throwing everything away has perfect recall


def claims(folders: Folders, allowed_error: float) -> tuple[Claim, ...]:
    """All claims that this run's stages can decide, in the order of the report."""
    found = (
        flagship_loss_predicted(folders, allowed_error),
        *scored_claims(folders),
        *curation_recalls(folders),
        clean_pages_kept(folders),
        held_out_is_disjoint(folders),
    )
    return tuple(claim for claim in found if claim is not None)


def flagship_loss_predicted(folders: Folders, allowed: float) -> Claim | None:
    """The law's prediction, made before the flagship was trained, beside what it reached."""
    if "forecast" not in folders or "flagship-base" not in folders:
        return None
    forecast = folders.json("forecast", "forecast.json")
    reached, interval, holds = reached_loss(folders), None, False
    if "refused" in forecast:
        told = f"reached {plain(reached)} nats per token, nothing was predicted: {forecast['refused']}"
    else:
        predicted = forecast["predicted"]
        error = relative_error(predicted["value"], reached)
        holds = error is not None and error <= allowed
        interval = (predicted["low"], predicted["high"])
        told = f"error {percent(error)}: reached {plain(reached)} nats per token, predicted {plain(predicted['value'])}"
    return Claim(
        name="flagship_loss_predicted",
        expected=f"held-out loss predicted from the ladder within {percent(allowed, 0)} of what the flagship reaches",
        measured=told,
        interval=interval,
        holds=holds,
        command=folders.command("forecast", "forecast.json"),
    )


def curation_recalls(folders: Folders) -> tuple[Claim, ...]:
    """One claim a kind of planted page."""
    made: list[Claim] = []
    for noise in planted(folders):
        assert noise.recall is not None
        assert noise.recall.value is not None
        made.append(
            Claim(
                name=f"curation_recall_{noise.kind}",
                expected=f"recall of at least {percent(RECALL, 0)} on planted pages of this kind, "
                "under a source that is not trusted",
                measured=f"{count(noise.caught)} of {count(noise.planted)} caught: {percent(noise.recall.value)}",
                interval=hundredths(noise.recall.low, noise.recall.high),
                holds=noise.recall.value >= RECALL,
                command=folders.command("corpus", "planted.json"),
            )
        )
    return tuple(made)


def clean_pages_kept(folders: Folders) -> Claim | None:
    found = folders.json("corpus", "planted.json", optional=True)
    if found is None:
        return None
    return Claim(
        name="clean_pages_kept",
        expected=f"at least {percent(CLEAN_KEPT, 0)} of the good pages of the world are kept",
        measured=f"of {count(found['clean'])} good pages {percent(found['clean_kept'])}",
        interval=None,
        holds=found["clean_kept"] >= CLEAN_KEPT,
        command=folders.command("corpus", "planted.json"),
    )


def held_out_is_disjoint(folders: Folders) -> Claim | None:
    proof = folders.json("world", "disjoint.json")
    if proof is None:
        return None
    checked = f"{count(proof['checked'])} held-out prompts against {count(proof['against'])} texts"
    return Claim(
        name="held_out_is_disjoint",
        expected=f"no run of {proof['words']} words of a held-out prompt stands in a page or prompt that is trained on",
        measured=f"{checked}: {count(proof['overlaps'])} overlaps",
        interval=None,
        holds=proof["overlaps"] == 0 and proof["checked"] > 0,
        command=folders.command("world", "disjoint.json"),
    )
