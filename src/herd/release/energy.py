"""What making a model took: energy as measured by its maker, or estimated from time and a stated power figure.

Nothing here reads a meter. An estimate says the time it counts and the power it assumes, and that it is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from herd.errors import SettingError
from herd.release.lineage import Lineage

# Of a machine without a stated figure: two busy server cores with their share of memory, fans and supply. Herd's
# assumption; a GPU takes far more (700 W is the rating of the H100 that Llama 3.1 was trained on).
ASSUMED_WATTS = 100.0
_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Energy:
    """`kwh` None: neither measured nor a time to estimate from. `grams` of CO2 per kWh, 0 where not stated."""

    kwh: float | None
    measured: bool
    seconds: float
    watts: float
    assumed: bool
    grams: float = 0.0

    def sentence(self) -> str:
        if self.kwh is None:
            return "Not measured, and no time is recorded from which to estimate it."
        if self.measured:
            text = f"Measured: {_amount(self.kwh)}, as stated by whoever published this model."
        else:
            whose = "herd's assumption for a small machine" if self.assumed else "stated by whoever published it"
            text = (
                f"Estimated, not measured: {_amount(self.kwh)}, from {_time(self.seconds)} of recorded work at "
                f"{self.watts:,.0f} W ({whose})."
            )
        if self.grams:
            text += f" At {self.grams:,.0f} g of CO2 per kWh: {self.kwh * self.grams / 1000:,.3g} kg of CO2."
        return text


def energy_of(lineage: Lineage, *, kwh: float = 0.0, watts: float = 0.0, grams: float = 0.0) -> Energy:
    """`kwh` is a measurement, `watts` the power to estimate with; 0 is not stated. Each stage counts once."""
    if not all(0 <= one < math.inf for one in (kwh, watts, grams)):
        raise SettingError("energy, power and CO2 are 0 or more", where="energy")
    stages = {step.folder for step in lineage.steps if step.made.get("stage")}
    counted = [step for step in lineage.steps if step.folder.parent not in stages]  # a stage's own model has its time
    seconds = sum(_seconds(step.made.get("seconds")) for step in counted)
    if kwh:
        return Energy(kwh, True, seconds, watts, False, grams)
    used = watts or ASSUMED_WATTS
    estimate = seconds * used / _JOULES_PER_KWH if seconds else None
    return Energy(estimate, False, seconds, used, not watts, grams)


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _amount(kwh: float) -> str:
    return f"{kwh * 1000:,.3g} Wh" if kwh < 1 else f"{kwh:,.4g} kWh"


def _time(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:,.1f} minutes"
    return f"{seconds / 3600:,.1f} hours"
