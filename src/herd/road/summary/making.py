"""The announcement's lines about how the models were made after pre-training, and what others can do with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from herd.report.claims import Claim
from herd.report.data import AnnouncementLine
from herd.report.numbers import count, percent
from herd.road.summary.folders import Folders
from herd.road.summary.posttraining import no_dpo
from herd.road.summary.verdicts import left_open, of_claims


def making(folders: Folders, known: Mapping[str, Claim]) -> tuple[AnnouncementLine, ...]:
    return (
        rounds_of_post_training(folders, known),
        synthetic_data(folders),
        quality_assurance(folders),
        of_claims("The flagship improves the smaller models' post-training", _one(known, "teaching_gains_5_points")),
        outputs_used(folders),
        of_claims("The flagship goes from BF16 to FP8 and stays as good", _one(known, "fp8_within_interval")),
        open_weights(folders),
    )


def rounds_of_post_training(folders: Folders, known: Mapping[str, Claim]) -> AnnouncementLine:
    """Holds if every round had its DPO and raised the suite: a round without it is not the round announced."""
    line = of_claims(
        "Several rounds of post-training, each with supervised fine-tuning, rejection sampling and DPO",
        _one(known, "every_round_raises_the_suite"),
    )
    if line.holds is None:
        return line
    without = [name for name in folders.rounds if no_dpo(_report(folders, name))]
    told = f"; without DPO: {', '.join(without)}" if without else f"; DPO in all {len(folders.rounds)} rounds"
    return AnnouncementLine(line.claim, line.command, line.measured + told, line.holds and not without)


def synthetic_data(folders: Folders) -> AnnouncementLine:
    """The share of model-written dialogues in the last round's SFT mix, as often as the mix repeats them."""
    claim = "Most examples of supervised fine-tuning are synthetic"
    if not folders.rounds:
        return left_open(claim)
    last = folders.rounds[-1]
    dialogues: Mapping[str, int] = _report(folders, last)["sft"]["dialogues"]
    times: Mapping[str, float] = folders.made(last).get("settings", {}).get("round", {}).get("mix", {})
    read = {part: many * times.get(part, 1.0) for part, many in dialogues.items()}
    written = sum(many for part, many in read.items() if part in ("accepted", "earlier"))
    share = written / total if (total := sum(read.values())) else 0.0
    told = f"{last}: {percent(share)} of {count(total)} dialogues were written by the flagship and verified"
    return AnnouncementLine(claim, folders.command(last, "round.json"), told, share > 0.5)


def quality_assurance(folders: Folders) -> AnnouncementLine:
    """Holds if in every round verifiers and rules refused something and something was left."""
    claim = "Synthetic data is filtered, so that only good answers are learnt from"
    if not folders.rounds:
        return left_open(claim)
    told, works = [], []
    for name in folders.rounds:
        report = _report(folders, name)
        drawn, kept = report["draw"]["candidates"], report["select"]["accepted"]
        dropped = sum(row["dropped"] for row in report["quality"])
        correct = report["judge"]["accepted"]
        told.append(
            f"{name}: {count(drawn)} answers drawn, {count(correct)} verified right, {count(dropped)} dropped by "
            f"rules of quality, {count(kept)} learnt from"
        )
        works.append(0 < kept <= correct < drawn)
    return AnnouncementLine(claim, folders.command(folders.rounds[-1], "round.json"), "; ".join(told), all(works))


def outputs_used(folders: Folders) -> AnnouncementLine:
    """The licence's allowance, used: the flagship's answers are in the small model's training."""
    claim = "The outputs may be used to improve other models"
    report = folders.json("small-taught", "teach.json", optional=True)
    if report is None:
        return left_open(claim)
    used = report["sft"].get("dialogues", {}).get("accepted", 0)
    told = f"the small model learnt from {count(used)} answers of the flagship"
    return AnnouncementLine(claim, folders.command("small-taught", "teach.json"), told, used > 0)


def open_weights(folders: Folders) -> AnnouncementLine:
    claim = "The weights are there to be downloaded, run and trained further with other programs"
    names = {"flagship": folders.flagship, "flagship-fp8": "flagship-fp8", "small": "small-taught"}
    made = {name: folders.paths[stage] for name, stage in names.items() if stage in folders}
    if not made:
        return left_open(claim)
    lacking = {name: _lacks(folder) for name, folder in made.items() if _lacks(folder)}
    told = f"complete folders in Hugging Face's layout: {', '.join(made)}"
    if lacking:
        told = "; ".join(f"{name} lacks {', '.join(files)}" for name, files in lacking.items())
    load = f"AutoModelForCausalLM.from_pretrained('{folders.home}/flagship')"
    command = f'python -c "from transformers import AutoModelForCausalLM; print({load})"'
    return AnnouncementLine(claim, command, told, not lacking)


def _lacks(folder: Path) -> list[str]:
    """What other programs need and the folder does not have."""
    needed = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    lacking = [name for name in needed if not (folder / name).is_file()]
    return lacking if any(folder.glob("*.safetensors")) else [*lacking, "*.safetensors"]


def _report(folders: Folders, name: str) -> Mapping[str, Any]:
    report: Mapping[str, Any] = folders.json(name, "round.json")
    return report


def _one(known: Mapping[str, Claim], name: str) -> list[Claim]:
    return [known[name]] if name in known else []
