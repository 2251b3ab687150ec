"""The report's sections on the rounds, on the flagship's teaching and on FP8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from herd.evaluate.statistics import wilson
from herd.evaluate.suite import SuiteResult
from herd.report.data import Fp8Check, Gate, Round, Score, Teaching
from herd.report.numbers import count, signed_points
from herd.road.summary.folders import Folders, as_score, difference_score, model_bytes
from herd.road.summary.fp8 import shown


def by_capability(result: SuiteResult | None) -> dict[str, Score]:
    if result is None:
        return {}
    counts = result.counts()
    return {name: as_score(score, counts[name]) for name, score in result.by_capability().items()}


def average(result: SuiteResult | None) -> Score | None:
    return None if result is None else as_score(result.average, len(result.items))


def rounds(folders: Folders) -> tuple[Round, ...]:
    """Counts from each round's own report; scores before and after on the suite, which no round chose by."""
    made: list[Round] = []
    previous = "flagship-start"
    for name in folders.rounds:
        made.append(_round(folders, name, previous))
        previous = name
    return tuple(made)


def _round(folders: Folders, name: str, previous: str) -> Round:
    report = folders.json(name, "round.json")
    before, after = folders.results.get(previous), folders.results.get(name)
    return Round(
        name=name.replace("-", " "),
        prompts=report["draw"]["prompts"],
        candidates=report["draw"]["candidates"],
        accepted=report["judge"]["accepted"],
        sft_dialogues=sum(report["sft"].get("dialogues", {}).values()),
        preference_pairs=report["dpo"].get("pairs", 0),
        reward_accuracy=reward_accuracy(report["reward"]),
        before=by_capability(before),
        after=by_capability(after),
        average_before=average(before),
        average_after=average(after),
        gate=_gate(report),
    )


def reward_accuracy(report: Mapping[str, Any]) -> Score | None:
    """Share of held-out pairs that the reward model puts in the right order."""
    share, pairs = report.get("held_out_accuracy"), report.get("held_out_pairs")
    return as_score(wilson(round(share * pairs), pairs), pairs) if share is not None and pairs else None


def _gate(report: Mapping[str, Any]) -> Gate:
    gate = report["gate"]
    told = "; ".join(gate["reasons"]) or f"{signed_points(gate['gain'])} points on the split that is kept for choosing"
    chosen = report["average"].get("chosen")
    parts = [
        told,
        f"best mix of weights: {chosen}" if chosen else "",
        f"no DPO: {left}" if (left := no_dpo(report)) else "",
    ]
    return Gate(gate["passed"], "; ".join(part for part in parts if part))


def no_dpo(report: Mapping[str, Any]) -> str:
    """Why a round had no DPO; empty when it had."""
    return str(report["dpo"].get("left_out", ""))


def teaching(folders: Folders) -> Teaching | None:
    """The small model with and without the flagship, compared item by item."""
    taught, alone = folders.results.get("small-taught"), folders.results.get("small-alone")
    found = folders.compared("small-alone", "small-taught")
    if found is None:
        return None
    return Teaching(
        budget=_budget(folders),
        taught=by_capability(taught),
        alone=by_capability(alone),
        gain={name: difference_score(row) for name, row in found["by_capability"].items()},
        average_taught=average(taught),
        average_alone=average(alone),
        average_gain=difference_score(found["overall"]),
    )


def _budget(folders: Folders) -> str:
    """What both had, in words and in the numbers of both, so that a reader sees whether it was the same."""
    told = ["the same start, seed dialogues, prompts and draws a prompt; alone it learns from its own accepted answers"]
    for name in ("small-alone", "small-taught"):
        report = folders.json(name, "teach.json", optional=True)
        if report is not None:
            sft = report["sft"]
            parts = ", ".join(f"{count(many)} {part}" for part, many in sft.get("dialogues", {}).items() if many)
            logits = ", and the flagship's logits" if report.get("distilled") else ""
            steps, tokens = count(sft.get("steps")), count(sft.get("tokens"))
            told.append(f"{name}: {steps} steps, {tokens} tokens of dialogues ({parts}{logits})")
    return "; ".join(told)


def fp8(folders: Folders) -> Fp8Check | None:
    """BF16 beside FP8. The check's file may be missing: then only scores and sizes are shown."""
    if "flagship-fp8" not in folders:
        return None
    check: Mapping[str, Any] = folders.json("fp8-check", "check.json", optional=True) or {}
    wide, narrow = fp8_bytes(folders)
    compared = folders.compared(folders.flagship, "flagship-fp8")
    return replace(
        shown(check),
        bf16=average(folders.results.get(folders.flagship)),
        fp8=average(folders.results.get("flagship-fp8")),
        difference=difference_score(compared["overall"]) if compared else None,
        bytes_bf16=wide,
        bytes_fp8=narrow,
    )


def fp8_bytes(folders: Folders) -> tuple[int | None, int | None]:
    """Bytes of the flagship in BF16 and in FP8: as the check says, or as the folders weigh."""
    check: Mapping[str, Any] = folders.json("fp8-check", "check.json", optional=True) or {}
    wide, narrow = check.get("bytes_bf16"), check.get("bytes_fp8")
    if wide is None and folders.flagship in folders:
        wide = model_bytes(folders.paths[folders.flagship])
    if narrow is None and "flagship-fp8" in folders:
        narrow = model_bytes(folders.paths["flagship-fp8"])
    return wide, narrow
