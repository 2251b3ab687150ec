"""Section 11: which artifact was made from which.

Drawn as a metro map beside a list: one row an artifact, one lane an artifact that is read further down. Unlike a
layered graph it keeps its text readable on a phone, whatever the number of stages.
"""

from __future__ import annotations

from herd.report.data import LineageNode
from herd.report.html import Html, tag
from herd.report.parts import more, scrolling, section, table
from herd.report.plot import marker, series_class

ROW, LANE, MOST_LANES = 34, 11, 14
KINDS = {"documents": ("s3", "square"), "stage": ("s6", "round"), "model": ("s0", "diamond")}


def lineage_section(nodes: tuple[LineageNode, ...]) -> Html:
    lead = "Every model, back to the documents it was made from. A line runs from an artifact down to all that read it."
    if not nodes:
        return section("lineage", "Lineage", lead)
    ordered = in_making_order(nodes)
    lanes = _lanes(ordered)
    names = {node.id: node.label for node in nodes}
    rows = [_row(node, names) for node in ordered]
    drawing = _drawing(ordered, lanes)
    inner = tag("div", drawing, tag("ol", rows), class_="lineage")
    return section(
        "lineage", "Lineage", lead, scrolling(inner, "Lineage"), more("The same as a table", _table(ordered, names))
    )


def in_making_order(nodes: tuple[LineageNode, ...]) -> list[LineageNode]:
    """Inputs before what is made of them, otherwise as given. Unknown inputs and circles are drawn, not refused."""
    left = {node.id: node for node in nodes}
    ordered: list[LineageNode] = []
    while left:
        ready = next((n for n in left.values() if not any(i in left and i != n.id for i in n.inputs)), None)
        node = ready or next(iter(left.values()))
        ordered.append(left.pop(node.id))
    return ordered


def _lanes(ordered: list[LineageNode]) -> dict[str, tuple[int, int, int]]:
    """node id -> (lane, first row, last row): the lowest lane that is free from its row to its last reader's."""
    rows = {node.id: row for row, node in enumerate(ordered)}
    last = {node.id: row for row, node in enumerate(ordered)}
    for row, node in enumerate(ordered):
        for name in node.inputs:
            if name in last:
                last[name] = max(last[name], row)
    busy_until: list[int] = []
    lanes: dict[str, tuple[int, int, int]] = {}
    for name, row in rows.items():
        lane = next((index for index, end in enumerate(busy_until) if end <= row), len(busy_until))
        busy_until[lane : lane + 1] = [last[name]]
        lanes[name] = (lane, row, last[name])
    return lanes


def _drawing(ordered: list[LineageNode], lanes: dict[str, tuple[int, int, int]]) -> Html:
    most = max(lane for lane, _, _ in lanes.values()) + 1
    step = LANE if most <= MOST_LANES else LANE * MOST_LANES / most
    width = step * (most + 1)
    # Lane 0 stands next to the text; further lanes to the left of it.
    places = {name: width - step * (lane + 0.9) for name, (lane, _, _) in lanes.items()}
    parts: list[Html] = []
    for name, (_, first, end) in lanes.items():
        if end > first:
            x, style = f"{places[name]:g}", series_class(first)
            parts.append(tag("line", x1=x, x2=x, y1=_y(first), y2=_y(end), class_=f"lane {style}"))
    for row, node in enumerate(ordered):
        for name in node.inputs:
            if name in places:
                style = series_class(lanes[name][1])
                parts.append(
                    tag(
                        "line",
                        x1=f"{places[name]:g}",
                        x2=f"{places[node.id]:g}",
                        y1=_y(row),
                        y2=_y(row),
                        class_=f"lane {style}",
                    )
                )
    for row, node in enumerate(ordered):
        style, mark = KINDS.get(node.kind, KINDS["stage"])
        dot = marker(100 * places[node.id] / width, _y(row), style, node.label, mark)
        parts.append(dot)
    described = f"{len(ordered)} artifacts and what each was made from; the table below says the same"
    return tag("svg", *parts, role="img", aria_label=described, width=f"{width:g}", height=str(ROW * len(ordered)))


def _y(row: int) -> str:
    return str(ROW * row + ROW // 2)


def _row(node: LineageNode, names: dict[str, str]) -> Html:
    made_from = ", ".join(names.get(name, name) for name in node.inputs)
    return tag(
        "li",
        tag("strong" if node.kind == "model" else "span", node.label, class_="label"),
        tag("span", node.kind, class_="role"),
        tag("code", node.hash[:12]) if node.hash else None,
        tag("span", f"from {made_from}", class_="from") if made_from else None,
        title=f"from {made_from}" if made_from else None,
    )


def _table(ordered: list[LineageNode], names: dict[str, str]) -> Html:
    rows = [
        (node.label, node.kind, tag("code", node.hash), ", ".join(names.get(name, name) for name in node.inputs))
        for node in ordered
    ]
    return table("Lineage", ("Artifact", "Kind", "Hash", "Made from"), rows)
