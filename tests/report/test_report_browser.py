"""The page in a real browser: nothing is wider than the screen, nothing is loaded, the script works and may be absent.

Needs `pip install playwright` and a Chromium (`chromium` on the path, or one that playwright installed).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_fixture import full_report
from test_report_hostile import HOSTILE, replaced

from herd.report.data import ReportData
from herd.report.page import write_report

pytestmark = pytest.mark.slow
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

OVERFLOWING = """() => [...document.querySelectorAll("main *")].filter((element) => {
  if (element.closest(".scroll, pre") || element.closest("svg")) return false;
  const box = element.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map((element) => element.tagName + "." + element.className).slice(0, 5)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium to look at the page with: {error}")
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    reports = {
        "full": full_report(),
        "hostile": replaced(full_report(), HOSTILE, None),
        "long": replaced(full_report(), "W" * 500, None),
        "empty": ReportData("empty"),
    }
    for name, data in reports.items():
        write_report(data, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in reports}


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
@pytest.mark.parametrize("name", ["full", "hostile", "long", "empty"])
def test_nothing_is_wider_than_the_screen(browser: Any, pages: dict[str, Path], name: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme="dark")
    page = context.new_page()
    page.goto(pages[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    wide = page.evaluate("document.documentElement.scrollWidth")
    overflowing = page.evaluate(OVERFLOWING)
    context.close()
    assert (wide, overflowing) == (width, [])


LINES_OF_STEPS = """() => [...document.querySelectorAll(".steps tbody th")].map((cell) => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return [cell.textContent, new Set([...range.getClientRects()].map((box) => box.top)).size];
}).filter(([name, lines]) => lines > 1 && !name.includes(" "))"""


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_name_of_a_curation_step_is_broken(browser: Any, pages: dict[str, Path], width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(pages["full"].as_uri())
    names = page.locator(".steps tbody th").all_inner_texts()
    broken = page.evaluate(LINES_OF_STEPS)
    page.close()
    assert {"exact_duplicates", "near_duplicates"} <= set(names)
    assert broken == []


@pytest.mark.parametrize("name", ["full", "hostile"])
def test_no_script_error_no_dialog_no_request(browser: Any, pages: dict[str, Path], name: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text))
    page.on("dialog", lambda dialog: (troubles.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: troubles.append(request.url) if "report" not in request.url else None)
    page.goto(pages[name].as_uri())
    page.wait_for_timeout(200)
    context.close()
    assert troubles == []


def test_conversations_are_filtered_and_all_shown_without_script(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(pages["full"].as_uri())
    every = page.locator(".talk:visible").count()
    page.select_option("select[name=lang]", "th")
    assert page.locator(".talk:visible").count() == 1
    assert page.locator(".filters output").inner_text() == f"1 of {every}"
    context.close()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["full"].as_uri())
    assert page.locator(".talk:visible").count() == every
    assert page.locator(".filters:visible").count() == 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(browser: Any, pages: dict[str, Path], scheme: str) -> None:
    """WCAG AA: a contrast of at least 4.5 for every colour that text is set in."""
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(pages["full"].as_uri())
    colours = page.evaluate(
        """() => Object.fromEntries(["--paper", "--card", "--wash", "--ink", "--soft", "--accent", "--fail",
        "--fail-wash", "--warn", "--warn-wash"].map((name) =>
        [name.slice(2), getComputedStyle(document.documentElement).getPropertyValue(name).trim()]))"""
    )
    context.close()
    pairs = [(text, ground) for text in ("ink", "soft", "accent") for ground in ("paper", "card", "wash")]
    pairs += [
        ("paper", "fail"),
        ("ink", "fail-wash"),
        ("soft", "fail-wash"),
        ("ink", "warn-wash"),
        ("warn", "warn-wash"),
    ]
    low = {pair: ratio for pair in pairs if (ratio := contrast(colours[pair[0]], colours[pair[1]])) < 4.5}
    assert low == {}


def contrast(one: str, other: str) -> float:
    lights = sorted((luminance(one), luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
