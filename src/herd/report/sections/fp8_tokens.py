"""Where FP8 predicts otherwise than BF16, token by token: the distribution of divergences, and the worst places."""

from __future__ import annotations

from herd.report.axes import log_axis, percent_axis
from herd.report.data import Fp8Check, WorstToken
from herd.report.html import Child, Html, join, tag
from herd.report.numbers import finite, measured, percent, scientific
from herd.report.parts import figure, more, note, table
from herd.report.plot import Plot

_SMALLEST = 1e-9  # nats; what is below is rounding, and stands at the left edge


def divergence_figure(check: Fp8Check) -> Html | None:
    """How many tokens diverge by at most so much."""
    kl = [max(value, _SMALLEST) for value in map(finite, check.divergences) if value is not None]
    if len(kl) < 2:
        return None
    x = log_axis("KL divergence of a token, nats", kl, written=_power)
    plot = Plot(x, percent_axis("tokens with at most this divergence"), "Distribution of the divergence of tokens", 260)
    plot.line([(value, rank / (len(kl) - 1)) for rank, value in enumerate(kl)], "s1", title="FP8 against BF16")
    middle = measured(kl[len(kl) // 2])
    return figure(f"KL divergence of FP8 from BF16, token by token: half of them lie below {middle} nats.", plot.html())


def worst_tokens(check: Fp8Check) -> Html | None:
    """The text before each, what followed, and how likely either model held it."""
    if not check.worst:
        return None
    head = ("text before", "what followed", "BF16 gave it", "FP8 gave it", "BF16 says", "FP8 says", "nats")
    rows = [_row(token) for token in check.worst]
    shown = table("The tokens on which both models differ most", head, rows, numeric=(2, 3, 6))
    said = note("A rare large difference matters more than a small mean: read these places.")
    return more(f"The {len(check.worst)} tokens where FP8 differs most", join([said, shown]))


def _row(token: WorstToken) -> list[Child]:
    return [
        f"…{token.before[-44:]}",
        _code(token.expected),
        percent(token.bf16, 2),
        percent(token.fp8, 2),
        _code(token.bf16_says),
        _code(token.fp8_says),
        measured(token.kl),
    ]


def _code(text: str) -> Html:
    """A token as it is, its spaces and line breaks seen."""
    return tag("code", text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥"))


def _power(tick: float) -> str:
    return scientific(tick) if tick < 0.01 else f"{tick:g}"
