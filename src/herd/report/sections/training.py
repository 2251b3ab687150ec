"""Section 3: the loss of every model over the tokens it saw, and how fast that went."""

from __future__ import annotations

from herd.report.axes import linear_axis, log_axis, short_tick
from herd.report.data import LossCurve, Number
from herd.report.html import Html, tag
from herd.report.numbers import count, finite, plain, rate, seconds, short
from herd.report.parts import figure, more, section, subheading, table, thin
from herd.report.plot import DASHES, MARKS, Plot, legend, series_class


def training_section(curves: tuple[LossCurve, ...]) -> Html:
    lead = "Pre-training loss in nats per token, over tokens seen. Lines are training batches, marks are held-out text."
    if not curves:
        return section("training", "Training", lead)
    return section("training", "Training", lead, _losses(curves), _rates(curves), *_tables(curves))


def _looks(curves: tuple[LossCurve, ...]) -> list[tuple[str, str, str]]:
    """Style, dash and mark of each curve; the rungs of the ladder share one quiet look."""
    looks, index = [], 0
    for curve in curves:
        if curve.rung:
            looks.append(("rung", "", "round"))
        else:
            looks.append((series_class(index), DASHES[index % len(DASHES)], MARKS[index % len(MARKS)]))
            index += 1
    return looks


def _losses(curves: tuple[LossCurve, ...]) -> Html:
    x = log_axis("tokens seen", [n for curve in curves for n in (*curve.tokens, *curve.validation_tokens)])
    lines = [thin(curve.tokens, curve.loss) for curve in curves]
    held_out = [loss for curve in curves for loss in curve.validation_loss]
    y = linear_axis("loss, nats per token", [loss for line in lines for _, loss in line] + held_out)
    plot = Plot(x, y, _description(curves), height=340)
    looks = _looks(curves)
    drawn = sorted(zip(curves, lines, looks, strict=True), key=lambda each: not each[0].rung)
    for curve, line, (style, dash, mark) in drawn:
        plot.line(line, style, dash, title=curve.model)
        held_out_points = list(zip(curve.validation_tokens, curve.validation_loss, strict=False))
        for tokens, loss in held_out_points[-1:] if curve.rung else held_out_points:  # of a rung only where it ends
            title = f"{curve.model}: {plain(loss)} after {short(tokens)} tokens"
            plot.dot(tokens, loss, style, title, mark)
    named = [
        (curve.model, style, dash, mark)
        for curve, (style, dash, mark) in zip(curves, looks, strict=True)
        if not curve.rung
    ]
    rungs = sum(curve.rung for curve in curves)
    if rungs:
        named.append((f"{rungs} runs of the ladder", "rung", "", "round"))
    return figure("Training loss, and loss on held-out text.", legend(named), plot.html())


def _description(curves: tuple[LossCurve, ...]) -> str:
    ends = [f"{curve.model} ends at {plain(_last(curve))}" for curve in curves if not curve.rung]
    return f"Loss over tokens for {len(curves)} runs. " + "; ".join(ends)


def _last(curve: LossCurve) -> Number:
    """The held-out loss at the end, or the training loss where none was measured."""
    for losses in (curve.validation_loss, curve.loss):
        measured = [loss for loss in map(finite, losses) if loss is not None]
        if measured:
            return measured[-1]
    return None


def _rates(curves: tuple[LossCurve, ...]) -> Html | None:
    shown = [(curve, look) for curve, look in zip(curves, _looks(curves), strict=True) if curve.learning_rate]
    shown = [(curve, look) for curve, look in shown if not curve.rung] or shown[:8]
    if not shown:
        return None
    # Linear in tokens: warm-up, cosine and anneal are recognised by their shape.
    x = linear_axis("tokens seen", [n for curve, _ in shown for n in curve.tokens], short_tick, most_ticks=5)
    rates = [value for curve, _ in shown for value in curve.learning_rate]
    y = linear_axis("learning rate", rates, rate, most_ticks=4)
    plot = Plot(x, y, "Learning rate over tokens", height=150)
    for curve, (style, dash, _) in shown:
        points = list(zip(curve.tokens, curve.learning_rate, strict=False))
        plot.line(points[:: max(1, len(points) // 240)], style, dash, title=curve.model)
    names = [(curve.model, style, dash, "") for curve, (style, dash, _) in shown]
    return tag("div", subheading("Learning rate"), figure("Learning rate of each run.", legend(names), plot.html()))


def _tables(curves: tuple[LossCurve, ...]) -> list[Html]:
    """The models of the family; the rungs, which are many, are folded."""
    models, rungs = [curve for curve in curves if not curve.rung], [curve for curve in curves if curve.rung]
    tables = [_table("The models of the family", models)] if models else []
    if rungs:
        tables.append(more(f"The {len(rungs)} runs of the ladder", _table("The runs of the ladder", rungs)))
    return tables


def _table(caption: str, curves: list[LossCurve]) -> Html:
    rows = []
    for curve in curves:
        seen = [n for n in map(finite, (*curve.tokens, *curve.validation_tokens)) if n is not None]
        rows.append(
            (
                curve.model,
                short(curve.parameters),
                short(max(seen, default=None)),
                plain(_last(curve)),
                count(curve.tokens_per_second),
                seconds(curve.seconds),
            )
        )
    head = ("Model", "Parameters", "Tokens", "Loss at the end", "Tokens/s", "Time")
    return table(caption, head, rows, numeric=(1, 2, 3, 4, 5))
