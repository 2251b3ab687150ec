"""Numbers as a reader wants them: percents, counts, bytes, seconds. What was not measured is a dash, never 'nan'."""

from __future__ import annotations

import math

from herd.report.data import Score

DASH = "–"
_LARGE = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def finite(value: float | None) -> float | None:
    """The value, or None where it is missing, NaN or infinite."""
    return value if value is not None and math.isfinite(value) else None


def plain(value: float | None, digits: int = 3) -> str:
    """A number to `digits` decimals, without a decimal point where it is whole."""
    value = finite(value)
    if value is None:
        return DASH
    if value and not 1e-3 <= abs(value) < 1e9:
        return scientific(value)
    return f"{value:,.0f}" if value == int(value) else f"{value:,.{digits}f}"


def scientific(value: float | None) -> str:
    """3.2e-04 written as 3.2 × 10⁻⁴, 1e11 as 10¹¹."""
    value = finite(value)
    if value is None:
        return DASH
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = mantissa.rstrip("0").rstrip(".").replace("-", "−")
    return f"10{raised}" if mantissa == "1" else f"{mantissa} × 10{raised}"


def rate(value: float | None) -> str:
    """A small number such as a learning rate: 0.002, but 8 × 10⁻⁵."""
    value = finite(value)
    if value is None:
        return DASH
    return f"{value:g}" if value == 0 or abs(value) >= 1e-4 else scientific(value)


def measured(value: float | None) -> str:
    """A measurement whose unit is not known here: four figures."""
    value = finite(value)
    if value is None:
        return DASH
    if value and not 1e-4 <= abs(value) < 1e6:
        return scientific(value)
    return (f"{value:,.0f}" if value == int(value) else f"{value:.4g}").replace("-", "−")


def count(value: float | None) -> str:
    """A count in full, thousands separated."""
    value = finite(value)
    return DASH if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """Three figures and a letter: 6.29 M, 431 k, 8.03 G."""
    value = finite(value)
    if value is None:
        return DASH
    for size, letter in _LARGE:
        if abs(value) >= size * 0.9995:
            return f"{_three(value / size)} {letter}"
    return _three(value)


def size(value: float | None) -> str:
    """Bytes with a decimal unit."""
    value = finite(value)
    if value is None:
        return DASH
    return f"{short(value)}B" if abs(value) >= 1000 else f"{value:.0f} B"


def _three(value: float) -> str:
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent: 0.824 -> 82.4 %."""
    value = finite(value)
    return DASH if value is None else f"{100 * value:.{digits}f} %"


def signed_points(value: float | None) -> str:
    """A difference of two fractions, in percentage points: +6.2."""
    value = finite(value)
    return DASH if value is None else f"{100 * value:+.1f}".replace("-", "−")


def seconds(value: float | None) -> str:
    """A duration: 41 s, 3 min 05 s, 2 h 04 min."""
    value = finite(value)
    if value is None:
        return DASH
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def score(value: Score | None) -> str:
    """82.4 % (80.1 to 84.6), or the number alone where no interval was measured."""
    if value is None or finite(value.value) is None:
        return DASH
    between = score_interval(value)
    return f"{percent(value.value)} {between}".strip()


def score_interval(value: Score) -> str:
    low, high = finite(value.low), finite(value.high)
    return "" if low is None or high is None else f"({100 * low:.1f} to {100 * high:.1f})"


def difference(value: Score | None) -> str:
    """+6.2 points (3.9 to 8.5)."""
    if value is None or finite(value.value) is None:
        return DASH
    low, high = finite(value.low), finite(value.high)
    between = "" if low is None or high is None else f" ({signed_points(low)} to {signed_points(high)})"
    return f"{signed_points(value.value)} points{between}"


def shorten(text: str, limit: int) -> str:
    """`text` cut to `limit` characters, the last of them an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
