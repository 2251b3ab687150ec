"""The announcement of the release line by line, in our words, beside what this run shows of it.

A line holds, does not hold, or is not part of this run (None): what one small run cannot show is not claimed. Where a
claim of the run measures a line, the claim's verdict is the line's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from herd.llama.config import LlamaConfig, llama31_8b, llama31_70b, llama31_405b
from herd.report.claims import Claim
from herd.report.data import AnnouncementLine
from herd.report.numbers import count, scientific, seconds, short
from herd.road.machine import machine
from herd.road.summary.abilities import abilities
from herd.road.summary.folders import Folders
from herd.road.summary.making import making
from herd.road.summary.training import phases, pretrained_tokens, rungs
from herd.road.summary.verdicts import left_open, of_claims

# Exact parameters of the released models (Hugging Face's safetensors indices).
RELEASED = {llama31_8b: 8_030_261_248, llama31_70b: 70_553_706_496, llama31_405b: 405_853_388_800}


def announcement(folders: Folders, claims: Sequence[Claim]) -> tuple[AnnouncementLine, ...]:
    """Every line of it; a recipe that lacks the stages of a line leaves the line open."""
    known = {claim.name: claim for claim in claims}
    return (
        three_sizes(folders),
        plain_transformer(folders),
        scale(folders),
        *abilities(folders),
        curated_data(folders, known),
        foreseen(known),
        outperforms(known),
        *making(folders, known),
        *beyond(),
    )


def three_sizes(folders: Folders) -> AnnouncementLine:
    made: list[LlamaConfig] = [preset() for preset in RELEASED]
    own = [
        f"{name} {count(folders.metrics(f'{name}-base')['parameters'])}"
        for name in ("flagship", "small")
        if "parameters" in folders.metrics(f"{name}-base")
    ]
    exact = ", ".join(count(config.parameters()) for config in made)
    this_run = f"; this run raised {', '.join(own)}" if own else ""
    names = "llama31_8b, llama31_70b, llama31_405b"
    return AnnouncementLine(
        claim="A family of one dense architecture in three sizes: 8B, 70B and 405B",
        command=f'python -c "from herd.llama.config import {names}; print(*(c().parameters() for c in ({names})))"',
        measured=f"the same code describes the three at {exact} parameters, as released{this_run}",
        holds=all(config.parameters() == released for config, released in zip(made, RELEASED.values(), strict=True)),
    )


def plain_transformer(folders: Folders) -> AnnouncementLine:
    """Stability: every pre-training of this run ended with a loss that is a number, none was stopped by the guard."""
    runs = [*rungs(folders), *phases(folders, "flagship"), *phases(folders, "small")]
    losses = [folders.metrics(name).get("validation_loss") for name in runs]
    finite = sum(loss is not None and math.isfinite(loss) for loss in losses)
    return AnnouncementLine(
        claim="A standard decoder-only transformer and no mixture of experts, for the sake of stable training",
        command=folders.raising,
        measured=f"{finite} of {len(runs)} pre-trainings ended with a finite held-out loss" if runs else "",
        holds=finite == len(runs) if runs else None,
    )


def scale(folders: Folders) -> AnnouncementLine:
    tokens = pretrained_tokens(folders, "flagship")
    flops = [folders.metrics(name).get("flops") for name in phases(folders, "flagship")]
    spent = [folders.metrics(name).get("train_seconds", 0.0) for name in phases(folders, "flagship")]
    here = ""
    if tokens is not None:
        total = sum(value for value in flops if value is not None)
        took = f"{scientific(total)} FLOPs, {seconds(sum(spent))}"
        here = f"here {short(tokens)} tokens, {took}, on {machine().cores or 'unknown'} cores"
    return left_open("More than 15 trillion tokens on more than 16 thousand GPUs", here, folders.raising)


def curated_data(folders: Folders, known: Mapping[str, Claim]) -> AnnouncementLine:
    names = [name for name in known if name.startswith("curation_recall_")]
    return of_claims(
        "Pre-training data is prepared and curated with more care",
        [known[name] for name in [*names, "clean_pages_kept", "held_out_is_disjoint"] if name in known],
        folders.command("corpus", "report.json"),
    )


def foreseen(known: Mapping[str, Claim]) -> AnnouncementLine:
    return of_claims("Scaling laws say beforehand what the flagship reaches", _some(known, "flagship_loss_predicted"))


def outperforms(known: Mapping[str, Claim]) -> AnnouncementLine:
    return of_claims(
        "As the laws lead to expect, the flagship is better than the smaller models raised the same way",
        _some(known, "flagship_beats_small"),
    )


def beyond() -> tuple[AnnouncementLine, ...]:
    """What one run on one machine cannot show."""
    return (
        left_open("In FP8 the largest model runs within a single server", "no model of that size was raised"),
        left_open("The largest model rivals the best closed models", "no other model was asked"),
        left_open("People compared its answers with those of competing models", "nobody was asked"),
        left_open("More than 150 benchmark datasets", "one suite with exact verifiers; see the scores"),
        left_open("Safeguards beside the model: classifiers of harmful prompts and replies, red teaming"),
        left_open("A system around the model: an API for agents, retrieval, evaluation and tuning by others"),
        left_open("Inference in production: real-time and batch, on many machines, with partners from the first day"),
    )


def _some(known: Mapping[str, Claim], *names: str) -> list[Claim]:
    return [known[name] for name in names if name in known]
