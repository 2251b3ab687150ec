"""Pictures of pipelines: every action has its box, and the page of the documentation shows what the code draws."""

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from herd.report.schedule import schedule_picture
from herd.train.parallel.play import Played, nominal, played
from herd.train.parallel.schedule import Schedule

PICTURE = Path(__file__).parent.parent.parent / "docs" / "pictures" / "pipeline.svg"
SVG = "{http://www.w3.org/2000/svg}"


def drawn(name: str, schedule: Schedule) -> tuple[Schedule, list[Played], str]:
    return schedule, played(schedule, lambda action: nominal(action) / schedule.virtual), name


def test_every_action_has_a_box_that_says_what_it_is() -> None:
    schedule = Schedule(pp=4, microbatches=6, virtual=2)
    picture = ElementTree.fromstring(schedule_picture([drawn("some <name>", schedule)]))
    titles = sorted(title.text or "" for title in picture.iter(f"{SVG}title"))
    assert len(titles) == len(set(titles)) == 2 * 8 * 6
    assert titles[0] == "backward of micro-batch 0, stage 0"
    texts = [text.text or "" for text in picture.iter(f"{SVG}text")]
    assert "some <name>: 25.0 % of the working time at rest" in texts
    assert [text for text in texts if text.startswith("rank")] == [f"rank {rank}" for rank in range(4)]


def test_boxes_too_narrow_for_their_number_have_none() -> None:
    picture = ElementTree.fromstring(schedule_picture([drawn("", Schedule(pp=2, microbatches=200))]))
    assert not [text for text in picture.iter(f"{SVG}text") if text.get("class") == "number"]
    assert (
        max(float(box.get("x", 0)) + float(box.get("width", 0)) for box in picture.iter(f"{SVG}rect") if box.get("x"))
        <= 960
    )


def test_the_page_shows_what_is_drawn() -> None:
    if not PICTURE.parent.exists():
        pytest.skip("docs/ is not here")
    picture = schedule_picture(
        [
            drawn("1F1B, 4 ranks of one stage, 8 micro-batches", Schedule(4, 8)),
            drawn("Interleaved, 4 ranks of two stages, N = 4", Schedule(4, 8, virtual=2)),
            drawn("Interleaved, N = M = 8", Schedule(4, 8, virtual=2, consecutive=8)),
        ]
    )
    if os.environ.get("HERD_WRITE_GOLDEN"):
        PICTURE.write_text(picture + "\n", encoding="utf-8")
    assert PICTURE.read_text(encoding="utf-8") == picture + "\n"
