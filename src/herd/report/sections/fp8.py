"""Section 7: what FP8 costs and what it saves."""

from __future__ import annotations

from herd.report.axes import linear_axis, percent_axis
from herd.report.data import Fp8Check, Number
from herd.report.html import Html
from herd.report.numbers import count, difference, finite, measured, percent, plain, score, size
from herd.report.parts import facts, figure, section
from herd.report.plot import Plot, Point, legend
from herd.report.rows import Row, Series, rows_chart
from herd.report.sections.fp8_tokens import divergence_figure, worst_tokens


def fp8_section(check: Fp8Check | None) -> Html:
    lead = "The same model in BF16 and in FP8, on the same texts and prompts."
    if check is None:
        return section("fp8", "FP8 beside BF16", lead)
    parts = (_facts(check), _capabilities(check), _rewards(check), divergence_figure(check), worst_tokens(check))
    return section("fp8", "FP8 beside BF16", lead, *parts)


def _facts(check: Fp8Check) -> Html | None:
    saved = ""
    if check.bytes_bf16 and check.bytes_fp8 is not None:
        saved = f"{size(check.bytes_bf16 - check.bytes_fp8)} ({percent(1 - check.bytes_fp8 / check.bytes_bf16)})"
    return facts(
        [
            (f"{check.model}, BF16", score(check.bf16)),
            (f"{check.model}, FP8", score(check.fp8)),
            ("Difference, paired", difference(check.difference)),
            ("Size, BF16", size(check.bytes_bf16)),
            ("Size, FP8", size(check.bytes_fp8)),
            ("Saved", saved),
            ("Same greedy token", score(check.agreement)),
            ("Perplexity, BF16", measured(check.perplexity_bf16)),
            ("Perplexity, FP8", measured(check.perplexity_fp8)),
            ("KL divergence a token, mean", _nats(check.kl_mean)),
            ("99 % of tokens below", _nats(check.kl_p99)),
            ("Largest", _nats(check.kl_max)),
            ("Measured on", f"{check.text}, {count(check.tokens)} tokens" if check.text else ""),
            ("Left in BF16", check.kept),
        ]
    )


def _nats(value: Number) -> str:
    return "" if value is None else f"{measured(value)} nats"


def _capabilities(check: Fp8Check) -> Html | None:
    if not check.capabilities:
        return None
    series = [Series("BF16", "s0"), Series("FP8", "s1", "square")]
    rows = [Row(name, pair, score(pair[1]).split(" (")[0]) for name, pair in check.capabilities.items()]
    names = [("BF16", "s0", "none", "round"), ("FP8", "s1", "none", "square")]
    drawing = rows_chart(rows, series, "Scores by capability in BF16 and in FP8, with their intervals")
    return figure("Scores by capability with 95 % intervals; the number is that of FP8.", legend(names), drawing)


def _rewards(check: Fp8Check) -> Html | None:
    """Two cumulative curves: where they lie on each other, quantisation did not change what the model is worth."""
    bf16, fp8 = _cumulative(check.rewards_bf16), _cumulative(check.rewards_fp8)
    if not bf16 and not fp8:
        return None
    x = linear_axis("reward of an answer", [value for value, _ in bf16 + fp8])
    medians = f"median {plain(_median(bf16))} in BF16 and {plain(_median(fp8))} in FP8"
    plot = Plot(x, percent_axis("answers with at most this reward"), f"Distribution of rewards: {medians}", 260)
    plot.line(bf16, "s0", "", title="BF16")
    plot.line(fp8, "s1", "5 4", title="FP8")
    names = [("BF16", "s0", "", ""), ("FP8", "s1", "5 4", "")]
    apart = ""
    if check.reward_ks is not None:
        apart = (
            f" The curves lie at most {percent(check.reward_ks)} apart (Kolmogorov-Smirnov, p {plain(check.reward_p)})."
        )
    return figure(f"Rewards of the answers: {medians}.{apart}", legend(names), plot.html())


def _cumulative(values: tuple[Number, ...], most: int = 200) -> list[Point]:
    """Steps of the empirical distribution, thinned to `most` of them."""
    ordered = sorted(value for value in map(finite, values) if value is not None)
    stride = max(1, len(ordered) // most)
    points: list[Point] = []
    for rank in range(0, len(ordered), stride):
        points += [
            (ordered[rank], rank / len(ordered)),
            (ordered[rank], min(rank + stride, len(ordered)) / len(ordered)),
        ]
    return points + ([(ordered[-1], 1.0)] if ordered else [])


def _median(points: list[Point]) -> Number:
    return next((value for value, share in points if share is not None and share >= 0.5), None)
