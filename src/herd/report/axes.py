"""Axes of a chart: where a value stands, in percent of the plot, and which ticks are shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from herd.report.numbers import finite, short


@dataclass(frozen=True)
class Axis:
    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def percent(self, value: float) -> float:
        """0 at `low`, 100 at `high`; values outside are held at the edge."""
        low, high = self._scale(self.low), self._scale(self.high)
        place = 100 * (self._scale(value) - low) / (high - low)
        return round(min(max(place, 0.0), 100.0), 2)

    def takes(self, value: float | None) -> bool:
        """Whether the value can be drawn: measured, and positive on a log axis."""
        value = finite(value)
        return value is not None and (value > 0 or not self.log)

    def _scale(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value


def short_tick(tick: float) -> str:
    """`short` without the zeros that only a column of figures needs: 1.5 M, not 1.50 M."""
    figures, _, letter = short(tick).partition(" ")
    figures = figures.rstrip("0").rstrip(".") if "." in figures else figures
    return f"{figures} {letter}".strip()


def linear_axis(
    label: str,
    values: Iterable[float | None],
    written: Callable[[float], str] | None = None,
    most_ticks: int = 6,
) -> Axis:
    """An axis that holds all finite values with a little air, ticks at 1, 2 or 5 times a power of ten."""
    low, high = _bounds(values, log=False)
    air = 0.04 * (high - low)
    low, high = low - air, high + air
    step = _nice_step((high - low) / most_ticks)
    first = math.ceil(low / step)
    if written is None:  # all ticks with as many decimals as the step has
        decimals = max(0, -math.floor(math.log10(step)))
        written = partial(_with_decimals, decimals)
    ticks = tuple(
        (_exact(index * step), written(_exact(index * step)))
        for index in range(first, first + 3 * most_ticks)
        if index * step <= high + 1e-9 * step
    )
    return Axis(label, low, high, ticks)


def log_axis(
    label: str, values: Iterable[float | None], written: Callable[[float], str] = short_tick, most_ticks: int = 5
) -> Axis:
    """A logarithmic axis over the positive values; ticks at powers of ten, or at 1, 2, 5 where these are few."""
    low, high = _bounds(values, log=True)
    decades = math.log10(high / low)
    low, high = low / 10 ** (0.03 * decades), high * 10 ** (0.03 * decades)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in exponents for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most_ticks:
            break
    ticks = ticks[:: math.ceil(len(ticks) / most_ticks)] if ticks else []
    return Axis(label, low, high, tuple((tick, written(tick)) for tick in ticks), log=True)


def percent_axis(label: str = "") -> Axis:
    """0 to 100 %, for fractions."""
    return Axis(label, 0.0, 1.0, tuple((tick / 4, f"{25 * tick} %") for tick in range(5)))


def _bounds(values: Iterable[float | None], log: bool) -> tuple[float, float]:
    real = [value for value in map(finite, values) if value is not None and (value > 0 or not log)]
    low, high = (min(real), max(real)) if real else (1.0, 10.0)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):  # one value, or none: give it room
        room = abs(low) / 2 if abs(low) > 1e-9 else 0.5
        return (low / 2, high * 2) if log else (low - room, high + room)
    return low, high


def _with_decimals(decimals: int, tick: float) -> str:
    return f"{tick + 0.0:.{decimals}f}".replace("-", "−")


def _exact(tick: float) -> float:
    """0.30000000000000004 as 0.3."""
    return float(f"{tick:.12g}")


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
