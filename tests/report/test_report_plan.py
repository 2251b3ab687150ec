"""The picture of a plan: all that it costs is in it, and the page of the documentation shows what the code draws."""

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from herd.report.plan import plan_picture
from herd.scaling.plan.memory import memory
from herd.scaling.plan.published import rows
from herd.scaling.plan.step import simulate

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"
SHOWN = {  # name of a published row -> its picture
    "405B, 16,384 GPUs, 8,192 tokens": "plan-405b.svg",
    "405B, 512 GPUs, FP8, interleaved": "plan-405b-512.svg",
}


def drawn(name: str) -> str:
    (row,) = (row for row in rows() if row.name == name)
    return plan_picture(row.job, row.way, simulate(row.job, row.way), memory(row.job, row.way))


def test_bars_are_as_wide_as_what_they_stand_for() -> None:
    picture = ElementTree.fromstring(drawn("405B, 512 GPUs, FP8, interleaved"))
    bars: dict[str, float] = {}
    for box in picture.iter(f"{SVG}rect"):
        if box.get("height") == "24":
            bars[box.get("y", "")] = bars.get(box.get("y", ""), 0.0) + float(box.get("width", 0))
    assert list(bars.values()) == pytest.approx([904, 904], abs=2)  # parts under a thousandth have no box


def test_without_a_pipeline_there_is_no_lane() -> None:
    words = [text.text or "" for text in ElementTree.fromstring(drawn("8B, 8 GPUs, eager")).iter(f"{SVG}text")]
    assert not [word for word in words if word.startswith("rank")]
    assert "time" in words
    assert "memory" in words


@pytest.mark.parametrize(("name", "file"), SHOWN.items())
def test_the_page_shows_what_is_drawn(name: str, file: str) -> None:
    if not PICTURES.exists():
        pytest.skip("docs/ is not here")
    if os.environ.get("HERD_WRITE_GOLDEN"):
        (PICTURES / file).write_text(drawn(name) + "\n", encoding="utf-8")
    assert (PICTURES / file).read_text(encoding="utf-8") == drawn(name) + "\n"
