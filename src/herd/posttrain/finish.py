"""The end of a round: averages of its models, the choice among them, and the gate.

The scores used here choose between models, so they must come from a split of their own; figures for a report are
measured on another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from herd.errors import NoEffectError
from herd.llama.model import Llama
from herd.posttrain.average import weighted_average
from herd.posttrain.settings import Average, GateSettings
from herd.progress import Progress


@dataclass(frozen=True)
class Scores:
    """What an evaluation says of a model: its average over capabilities, and each of them; higher is better."""

    average: float
    by_capability: Mapping[str, float]

    def plain(self) -> dict[str, Any]:
        return {"average": self.average, "by_capability": dict(self.by_capability)}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Scores:
        return Scores(plain["average"], dict(plain["by_capability"]))


Evaluate = Callable[[Llama], Scores]


def average_models(models: Mapping[str, Llama], mixes: Sequence[Average]) -> dict[str, Llama]:
    """One model for each mix, by a name that says its weights, e.g. "0.5 sft + 0.5 dpo". Equal mixes are made once.

    `models` may lack "dpo", when a round had no pairs: the SFT model stands in its place.
    """
    made: dict[str, Llama] = {}
    for mix in mixes:
        weights = asdict(mix)
        if "dpo" not in models:
            weights["sft"] += weights.pop("dpo")
        total = sum(weights.values())
        used = {name: weight / total for name, weight in weights.items() if weight}
        name = " + ".join(f"{weight:.3g} {part}" for part, weight in used.items())
        if name not in made:
            made[name] = copy.deepcopy(models[next(iter(used))])
            states = [models[part].state_dict() for part in used]
            made[name].load_state_dict(weighted_average(states, list(used.values())))
    return made


def gate(number: int, before: Scores, after: Scores, settings: GateSettings, progress: Progress) -> dict[str, Any]:
    """Does the round's model go on? Returns {"passed", "gain", "reasons"}; a failure is noted loudly.

    Raises NoEffectError instead when the settings say that a failed gate ends the work.
    """
    gain = after.average - before.average
    reasons = (
        [] if gain >= settings.min_gain else [f"its average gained {gain:+.4g}, the gate asks {settings.min_gain:+.4g}"]
    )
    if settings.max_drop is not None:
        for capability, score in before.by_capability.items():
            lost = score - after.by_capability.get(capability, 0.0)
            if lost > settings.max_drop:
                reasons.append(f"{capability} lost {lost:.4g}, at most {settings.max_drop:.4g} is allowed")
    if reasons:
        told = f"ROUND {number} FAILED ITS GATE: {'; '.join(reasons)}"
        if settings.on_failure == "stop":
            raise NoEffectError(told, mend="give the round more prompts, more steps or another learning rate")
        progress.note(f"{told}. The model from before the round is kept.")
    return {"passed": not reasons, "gain": gain, "reasons": reasons}
