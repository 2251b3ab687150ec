"""Two models on the same items, compared in pairs: overall, by capability, by language.

Pairing takes the difficulty of the items out of the comparison, so a difference can be clear where the two models'
own intervals overlap. `p` is McNemar's exact test; `p_holm` is adjusted for the number of groups looked at: read that
one when asking whether *any* capability got better or worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from herd.errors import InputError
from herd.evaluate.statistics import (
    holm,
    intervals_apart,
    macro_average,
    mcnemar,
    mean_interval,
    paired_difference,
)
from herd.evaluate.suite import Item, SuiteResult, grouped, plain


def compare(first: SuiteResult, second: SuiteResult, *, level: float = 0.95, seed: int = 0) -> dict[str, Any]:
    """Plain values: `overall`, `by_capability` and `by_language`; differences are second minus first.

    Raises InputError when the two did not answer the same items with the same prompts.
    """
    check_same_items(first, second)
    # Aligned by id: files and reruns may hold the items in another order.
    other = {item.id: item for item in second.items}
    pairs = [(item, other[item.id]) for item in first.items]
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    capabilities_a = grouped(ours, lambda item: item.capability)
    capabilities_b = grouped(theirs, lambda item: item.capability)
    average_a, average_b = macro_average(capabilities_a, level), macro_average(capabilities_b, level)
    test = mcnemar([float(item.ok) for item in ours], [float(item.ok) for item in theirs])
    overall = {
        "n": len(pairs),
        "first": plain(average_a),
        "second": plain(average_b),
        "difference": plain(paired_difference(capabilities_a, capabilities_b, level=level, seed=seed)),
        "apart": intervals_apart(average_a, average_b),
        "won": test.only_second,
        "lost": test.only_first,
        "p": test.p,
    }
    return {
        "suite": first.suite,
        "version": first.version,
        "level": level,
        "overall": overall,
        "by_capability": _groups(ours, theirs, lambda item: item.capability, level, seed),
        "by_language": _groups(ours, theirs, lambda item: item.lang, level, seed),
    }


def check_same_items(first: SuiteResult, second: SuiteResult) -> None:
    """Refuse a comparison of different items, or of the same items asked differently."""
    a, b = ({item.id: item for item in result.items} for result in (first, second))
    missing, extra = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
    if missing or extra:
        raise InputError(
            f"the two results are not about the same items: {len(missing)} only in the first, {len(extra)} only in"
            f" the second ({', '.join([*missing, *extra][:3])})",
            where=f"{first.suite} {first.version} / {second.suite} {second.version}",
            mend="evaluate both models on the same suite and version",
        )
    changed = [name for name in a if (a[name].prompt, a[name].target) != (b[name].prompt, b[name].target)]
    if changed:
        raise InputError(
            f"{len(changed)} items were asked differently, {changed[0]!r} first",
            where=f"{first.suite} {first.version} / {second.suite} {second.version}",
            mend="evaluate both models on the same suite and version",
        )


def _groups(
    ours: list[Item], theirs: list[Item], key: Callable[[Item], str], level: float, seed: int
) -> dict[str, dict[str, Any]]:
    a, b = grouped(ours, key), grouped(theirs, key)
    p_holm = holm({name: mcnemar(a[name], b[name]).p for name in a})
    return {name: {**_one(a, b, name, level, seed), "p_holm": p_holm[name]} for name in a}


def _one(
    a: Mapping[str, list[float]], b: Mapping[str, list[float]], name: str, level: float, seed: int
) -> dict[str, Any]:
    test = mcnemar(a[name], b[name])
    return {
        "n": len(a[name]),
        "first": plain(mean_interval(a[name], level)),
        "second": plain(mean_interval(b[name], level)),
        "difference": plain(paired_difference({name: a[name]}, {name: b[name]}, level=level, seed=seed)),
        "won": test.only_second,
        "lost": test.only_first,
        "p": test.p,
    }
