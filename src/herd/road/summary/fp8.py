"""A measured FP8 check (`road/quality.py`) as the report's section shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from herd.report.data import Fp8Check, Score, WorstToken


def shown(check: Mapping[str, Any], model: str = "flagship") -> Fp8Check:
    """Of the plain values of check.json; whatever was not measured is left out."""
    kl, perplexity, shift = (check.get(name) or {} for name in ("kl", "perplexity", "shift"))
    compared = check.get("suite") or {}
    overall = compared.get("overall") or {}
    return Fp8Check(
        model=model,
        bf16=_score(overall.get("first")),
        fp8=_score(overall.get("second")),
        difference=_score(overall.get("difference")),
        bytes_bf16=check.get("bytes_bf16"),
        bytes_fp8=check.get("bytes_fp8"),
        rewards_bf16=tuple(check.get("rewards_bf16") or ()),
        rewards_fp8=tuple(check.get("rewards_fp8") or ()),
        agreement=_score(check.get("agreement")),
        kept=str(check.get("kept", "")),
        reward_ks=shift.get("ks"),
        reward_p=shift.get("p"),
        capabilities={
            name: (_score(one["first"]), _score(one["second"]))
            for name, one in (compared.get("by_capability") or {}).items()
        },
        text=str(check.get("text", "")),
        tokens=check.get("tokens"),
        kl_mean=kl.get("mean"),
        kl_p99=kl.get("p99"),
        kl_max=kl.get("max"),
        divergences=tuple(check.get("divergences") or ()),
        perplexity_bf16=perplexity.get("bf16"),
        perplexity_fp8=perplexity.get("fp8"),
        worst=tuple(WorstToken(**one) for one in check.get("worst") or ()),
    )


def _score(found: Mapping[str, float] | None) -> Score | None:
    return Score(found["value"], found["low"], found["high"]) if found else None
