"""The claims that the suite decides: rounds, sizes, teaching, FP8. All on held-out items that no stage chose by.

Scores are macro averages over capabilities; differences are paired, item by item. Intervals are of 95 %.
"""

from __future__ import annotations

from itertools import pairwise

from herd.evaluate.statistics import intervals_apart
from herd.evaluate.suite import SuiteResult
from herd.report.claims import Claim
from herd.report.numbers import percent, score, signed_points, size
from herd.road.summary.folders import Folders, as_score, difference_score
from herd.road.summary.posttraining import fp8_bytes

AVERAGE = 0.70  # of the flagship after its last round
LEAST_CAPABILITY = 0.50
TEACHING_GAIN = 0.05
_ROUNDING = 1e-9  # a difference of two means of counts, not a concession

Percents = tuple[float, float]


def scored_claims(folders: Folders) -> tuple[Claim | None, ...]:
    return (
        flagship_beats_small(folders),
        every_round_raises_the_suite(folders),
        flagship_averages_70(folders),
        no_capability_under_50(folders),
        teaching_gains_5_points(folders),
        fp8_within_interval(folders),
    )


def flagship_beats_small(folders: Folders) -> Claim | None:
    """The flagship that is released against the small model that is released."""
    large, small = folders.results.get(folders.flagship), folders.results.get("small-taught")
    if large is None or small is None:
        return None
    apart = intervals_apart(large.average, small.average)
    touch = "do not touch" if apart else "overlap"
    both = f"{_named(folders.flagship, large)}, {_named('small-taught', small)}: the intervals {touch}"
    told, interval = _difference(folders, "small-taught", folders.flagship)
    return Claim(
        name="flagship_beats_small",
        expected="suite average of the flagship above that of the small model, the 95 % intervals apart",
        measured=f"{both}; difference, paired, {told}",
        interval=interval,
        holds=apart and large.average.value > small.average.value,
        command=_shows(folders, folders.flagship),
    )


def every_round_raises_the_suite(folders: Folders) -> Claim | None:
    """Each round against the model that it set out from; all must rise. The chain shows the base model too."""
    policies = ("flagship-start", *folders.rounds)
    if not folders.rounds or any(name not in folders.results for name in policies):
        return None
    averages = {name: folders.results[name].average.value for name in policies}
    rises = {(a, b): averages[b] - averages[a] for a, b in pairwise(policies)}
    least = min(rises, key=lambda pair: rises[pair])
    told, interval = _difference(folders, *least)
    chain = [name for name in ("flagship-base", *policies) if name in folders.results]
    steps = " → ".join(f"{name} {percent(folders.results[name].average.value)}" for name in chain)
    return Claim(
        name="every_round_raises_the_suite",
        expected="each round's suite average above that of the model before the round",
        measured=f"{steps}; least rise of a round ({least[1]}), paired, {told}",
        interval=interval,
        holds=all(rise > 0 for rise in rises.values()),
        command=_shows(folders, least[1]),
    )


def flagship_averages_70(folders: Folders) -> Claim | None:
    result = folders.results.get(folders.flagship)
    if result is None:
        return None
    return Claim(
        name="flagship_averages_70",
        expected=f"suite average of the flagship after its last round at least {percent(AVERAGE, 0)}",
        measured=f"{folders.flagship} averages {percent(result.average.value)}",
        interval=hundredths(result.average.low, result.average.high),
        holds=result.average.value >= AVERAGE - _ROUNDING,
        command=_shows(folders, folders.flagship),
    )


def no_capability_under_50(folders: Folders) -> Claim | None:
    result = folders.results.get(folders.flagship)
    if result is None:
        return None
    found = result.by_capability()
    least = min(found, key=lambda name: found[name].value)
    return Claim(
        name="no_capability_under_50",
        expected=f"every capability of the flagship at least {percent(LEAST_CAPABILITY, 0)}",
        measured=f"the lowest of {len(found)} is {least} with {percent(found[least].value)}",
        interval=hundredths(found[least].low, found[least].high),
        holds=found[least].value >= LEAST_CAPABILITY - _ROUNDING,
        command=_shows(folders, folders.flagship),
    )


def teaching_gains_5_points(folders: Folders) -> Claim | None:
    """The baseline has the same start, seed dialogues, prompts and steps, and its own accepted answers."""
    taught, alone = folders.results.get("small-taught"), folders.results.get("small-alone")
    if taught is None or alone is None:
        return None
    told, interval = _difference(folders, "small-alone", "small-taught")
    gain = taught.average.value - alone.average.value
    return Claim(
        name="teaching_gains_5_points",
        expected=f"small model taught by the flagship at least {100 * TEACHING_GAIN:.0f} points above itself alone",
        measured=f"{_named('small-taught', taught)}, {_named('small-alone', alone)}: gain, paired, {told}",
        interval=interval,
        holds=gain >= TEACHING_GAIN - _ROUNDING,
        command=_shows(folders, "small-taught"),
    )


def fp8_within_interval(folders: Folders) -> Claim | None:
    wide, narrow = folders.results.get(folders.flagship), folders.results.get("flagship-fp8")
    if wide is None or narrow is None:
        return None
    told, interval = _difference(folders, folders.flagship, "flagship-fp8")
    half, saved = wide.average.halfwidth, _saved(folders)
    change = abs(narrow.average.value - wide.average.value)
    half_told = f"half-width {100 * half:.1f} points"
    return Claim(
        name="fp8_within_interval",
        expected="FP8 changes the suite average by less than half the width of its 95 % interval; bytes saved stated",
        measured=f"{_named('BF16', wide)}, {half_told}; {saved or 'bytes not known'}; change, paired, {told}",
        interval=interval,
        holds=change < half and bool(saved),
        command=_shows(folders, "flagship-fp8"),
    )


def _saved(folders: Folders) -> str:
    wide, narrow = fp8_bytes(folders)
    if not wide or narrow is None:
        return ""
    return f"{size(wide - narrow)} of {size(wide)} saved ({percent(1 - narrow / wide)})"


def _named(name: str, result: SuiteResult) -> str:
    return f"{name} {score(as_score(result.average))}"


def _difference(folders: Folders, first: str, second: str) -> tuple[str, Percents | None]:
    """Second minus first in points, and its interval in points; both have scores."""
    compared = folders.compared(first, second)
    assert compared is not None
    found = difference_score(compared["overall"])
    return f"{signed_points(found.value)} points", hundredths(found.low, found.high)


def hundredths(low: float | None, high: float | None) -> Percents | None:
    """A fraction's interval in percent (a difference's in points), to two decimals."""
    return None if low is None or high is None else (round(100 * low, 2), round(100 * high, 2))


def _shows(folders: Folders, model: str) -> str:
    return folders.command(f"scores-{model}", "results_*.json")
