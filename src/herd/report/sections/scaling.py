"""Section 4: the scaling law, and its prediction beside what the flagship reached."""

from __future__ import annotations

from herd.report.axes import linear_axis, log_axis
from herd.report.data import IsoFlopCurve, Scaling, ScalingPoint, Score
from herd.report.html import Html, tag
from herd.report.numbers import finite, percent, plain, scientific, short
from herd.report.parts import facts, figure, section, subheading, table, warning
from herd.report.plot import MARKS, Plot, legend, series_class
from herd.report.rows import Row, Series, rows_chart


def scaling_section(scaling: Scaling | None) -> Html:
    lead = "Small runs at several compute budgets, a parabola through each budget, and a law through the minima."
    if scaling is None:
        return section("scaling", "The scaling law", lead)
    return section(
        "scaling",
        "The scaling law",
        lead,
        warning("No law was fitted: ", scaling.refused) if scaling.refused else None,
        _prediction(scaling),
        _isoflops(scaling.curves),
        _frontier(scaling),
        _table(scaling.curves),
    )


def _prediction(scaling: Scaling) -> Html | None:
    interval = ""
    if finite(scaling.low) is not None and finite(scaling.high) is not None:
        interval = f" ({plain(scaling.low)} to {plain(scaling.high)})"
    error = percent(scaling.error) if finite(scaling.error) is not None else ""
    if error and finite(scaling.allowed) is not None:
        error += f" (at most {percent(scaling.allowed, 0)} is expected)"
    predicted = plain(scaling.predicted) + interval if finite(scaling.predicted) is not None else ""
    return facts(
        [
            (f"Predicted loss of the {scaling.model}, before it was trained", predicted),
            ("Reached", plain(scaling.reached)),
            ("Error", error),
            ("Compute", f"{scientific(scaling.flops)} FLOPs" if finite(scaling.flops) is not None else ""),
            ("Law", tag("code", scaling.law) if scaling.law else None),
        ]
    )


def _isoflops(curves: tuple[IsoFlopCurve, ...]) -> Html | None:
    points = [point for curve in curves for point in (*curve.runs, *curve.fit, *_minimum(curve))]
    if not points:
        return None
    x = log_axis("parameters", [point.parameters for point in points])
    y = linear_axis("loss, nats per token", [point.loss for point in points])
    plot = Plot(x, y, f"Loss over parameters at {len(curves)} compute budgets, with the minimum of each fit")
    names = []
    for index, curve in enumerate(curves):
        style, mark = series_class(index), MARKS[index % len(MARKS)]
        plot.line([(point.parameters, point.loss) for point in curve.fit], style)
        for run in curve.runs:
            title = f"{scientific(curve.flops)} FLOPs, {short(run.parameters)} parameters: {plain(run.loss)}"
            plot.dot(run.parameters, run.loss, style, title, mark)
        for low in _minimum(curve):
            title = f"minimum: {short(low.parameters)} parameters, {plain(low.loss)}"
            plot.dot(low.parameters, low.loss, "ring", title, "ring")
        names.append((f"{scientific(curve.flops)} FLOPs", style, "", mark))
    names.append(("minimum of a fit", "ring", "none", "ring"))
    return figure("Loss by model size at equal compute.", legend(names), plot.html())


def _frontier(scaling: Scaling) -> Html | None:
    minima = [(curve.flops, low.loss) for curve in scaling.curves for low in _minimum(curve)]
    if len(minima) < 2 or finite(scaling.flops) is None or finite(scaling.predicted) is None:
        return None
    ends = [scaling.low, scaling.high, scaling.predicted, scaling.reached]
    x = log_axis("compute, FLOPs", [flops for flops, _ in minima] + [scaling.flops], scientific, most_ticks=4)
    y = linear_axis("loss, nats per token", [loss for _, loss in minima] + ends)
    plot = Plot(
        x, y, f"Best loss over compute: predicted {plain(scaling.predicted)}, reached {plain(scaling.reached)}", 240
    )
    plot.line([*minima, (scaling.flops, scaling.predicted)], "rung", "4 3")
    for flops, loss in minima:
        plot.dot(flops, loss, "rung", f"{scientific(flops)} FLOPs: {plain(loss)}")
    plot.whisker(scaling.flops, scaling.low, scaling.high, "s2", "interval of the prediction")
    plot.dot(scaling.flops, scaling.predicted, "s2", f"predicted: {plain(scaling.predicted)}", "square")
    plot.dot(scaling.flops, scaling.reached, "s1", f"reached: {plain(scaling.reached)}", "diamond")
    names = [
        ("best at each budget", "rung", "4 3", "round"),
        ("predicted", "s2", "none", "square"),
        ("reached", "s1", "none", "diamond"),
    ]
    caption = "The minima, the prediction with its interval, and what was reached."
    return tag("div", subheading("The prediction"), figure(caption, legend(names), plot.html()), _beside(scaling))


def _beside(scaling: Scaling) -> Html | None:
    """Prediction and result alone, on an axis of their own: on the axis of the ladder they touch."""
    losses = [scaling.low, scaling.high, scaling.predicted, scaling.reached]
    axis = linear_axis("loss", losses, most_ticks=4)
    rows = [
        Row("predicted", (Score(scaling.predicted, scaling.low, scaling.high), None), plain(scaling.predicted)),
        Row("reached", (None, Score(scaling.reached)), plain(scaling.reached)),
    ]
    series = (Series("predicted", "s2", "square"), Series("reached", "s1", "diamond"))
    described = f"Predicted {plain(scaling.predicted)}, reached {plain(scaling.reached)}"
    drawing = rows_chart(rows, series, described, axis, written=lambda loss: plain(loss.value))
    return figure("Loss in nats per token: the prediction with its interval, and what was reached.", drawing)


def _minimum(curve: IsoFlopCurve) -> tuple[ScalingPoint, ...]:
    return () if curve.minimum is None else (curve.minimum,)


def _table(curves: tuple[IsoFlopCurve, ...]) -> Html | None:
    rows = []
    for curve in curves:
        low = curve.minimum
        best = (short(low.parameters), short(low.tokens), plain(low.loss)) if low else ("–", "–", "–")
        rows.append((f"{scientific(curve.flops)}", str(len(curve.runs)), *best))
    head = ("FLOPs", "Runs", "Best parameters", "Best tokens", "Loss there")
    return table("Minima of the fits", head, rows, numeric=(1, 2, 3, 4)) if rows else None
