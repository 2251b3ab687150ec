"""The page's modules by themselves, in Chromium: Markdown against markdown-it, events of streams, arithmetic, units."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")
from fake_server import FakeServer
from page_driver import Visit
from playwright.sync_api import Browser, Page

markdown_it = pytest.importorskip("markdown_it")
pytestmark = pytest.mark.slow

SKELETON = (Path(__file__).parent / "skeleton.js").read_text(encoding="utf-8")
COMPARE = """
async ([text, html]) => {
  const { MarkdownView } = await import('/page/markdown.js');
  const ours = document.createElement('body');
  new MarkdownView(ours).show(text);
  const theirs = new DOMParser().parseFromString(html, 'text/html').body;
  const wrap = (body) => JSON.stringify(body);
  return [wrap(window.skeleton(ours, window.SAME)), wrap(window.skeleton(theirs, window.THEIRS))];
}
"""


@pytest.fixture(scope="module")
def modules(browser: Browser, one_server: FakeServer) -> Iterator[Page]:
    visit = Visit(browser, one_server.url)
    visit.expected = ("Applying inline style",)  # what markdown-it writes into tables
    visit.page.evaluate(SKELETON)
    yield visit.page
    visit.close()


def reference() -> Any:
    """CommonMark as far as we go: tables and ~~ as GitHub's, line breaks kept, no HTML, no setext, no indented code."""
    parser = markdown_it.MarkdownIt("commonmark", {"html": False, "breaks": True})
    return parser.enable(["table", "strikethrough"]).disable(
        ["html_block", "html_inline", "lheading", "code", "reference", "image", "entity"]
    )


DOCUMENTS = [
    "# One\n\n## Two ##\n\n###### Six\n\n#no heading\n\n####### seven",
    "A paragraph\nof two lines\n\nand another",
    "- a\n- b\n\n  more of b\n- c",
    "* a\n    * b\n        * c\n* d",
    "1. one\n2. two\n   - inner\n   - inner too\n3. three",
    "7) seven\n8) eight",
    "- a\n\n- b\n\n\n- c",
    "1. a\n\n   ```\n   code\n   ```\n2. b",
    "text\n- a list right behind\n- it\n\ntext",
    "text\n7. this is no list",
    "- one\n+ another list\n* and one more",
    "> quoted\n> more\nlazy\n\n> - list\n>   in it\n\n> > twice",
    "> # head\n> ```\n> code\n> ```",
    "```python\ndef f():\n    return '`' * 3\n```\n\n~~~\n``` inside ~~~\n~~~~",
    "````\n```\n````\nafter",
    "```\nopen to the end\n\n# not a heading",
    "a\n***\nb\n\n---\n\n- - -\n\n_ _ _",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n| `x|y` \\| z | **b** |\n| short |\n| far | too | long |\n\nafter",
    "a | b\n--- | ---\n1 | 2",
    "| a | b |\n| 1 | 2 |",
    "- a\n  > q\n  1. n\n- b",
    "**bold** *it* ***both*** __b__ _i_ ~~gone~~ snake_case_word 2*3*4 a**b**c",
    "`code` ``with ` in it`` ` `` ` `unclosed",
    "[a](https://a.example/x) [b](<https://b.example/y z> 'title') [**c** d](https://c.example/(x)) [no](nothing",
    "\\*not\\* \\[x\\](y) \\` \\q",
    "<https://a.example/?q=1&r=2>",
    "*a **b* c** **d *e** f*",
    "- a\n-\n- c",
    "สวัสดี **ไทย** और *हिन्दी* 🦙**x**",
    "1. a\n1. b\n\n\n\n5. c",
    "- x\n\n\ttabbed\n- y",
]


@pytest.mark.parametrize("text", DOCUMENTS)
def test_markdown_is_what_markdown_it_makes_of_it(modules: Page, text: str) -> None:
    ours, theirs = modules.evaluate(COMPARE, [text, reference().render(text)])
    assert json.loads(ours) == json.loads(theirs)


def test_emphasis_and_code_of_all_kinds_agree_with_markdown_it(modules: Page) -> None:
    draw = random.Random(5)
    texts = [
        "".join(draw.choices(["*", "**", "_", "~~", "`", "a", "b ", " c", ".", "\\", "é"], k=14)) for _ in range(1500)
    ]
    # A list or a rule is another matter, and three tildes strike nothing out on GitHub.
    texts = [f"x{text}" for text in texts if "~~~" not in text]
    pairs = [(text, reference().render(text)) for text in texts]
    found = modules.evaluate("async (pairs) => { const f = " + COMPARE + "; return Promise.all(pairs.map(f)); }", pairs)
    wrong = [(text, ours, theirs) for text, (ours, theirs) in zip(texts, found, strict=True) if ours != theirs]
    assert wrong[:3] == []


def test_a_link_holds_no_link(modules: Page) -> None:
    html = modules.evaluate(
        """async (text) => {
          const { MarkdownView } = await import('/page/markdown.js');
          const element = document.createElement('div');
          new MarkdownView(element).show(text);
          return [element.querySelectorAll('a a').length, element.textContent];
        }""",
        "[outer [inner](https://x.example/)](https://y.example/)",
    )
    assert html == [0, "[outer inner](https://y.example/)"]


def test_an_answer_drawn_bit_by_bit_is_the_answer_drawn_at_once(modules: Page) -> None:
    for text in DOCUMENTS:
        grown, whole = modules.evaluate(
            """async (text) => {
              const { MarkdownView } = await import('/page/markdown.js');
              const [a, b] = [document.createElement('div'), document.createElement('div')];
              const view = new MarkdownView(a);
              for (let i = 0; i <= text.length; i += 3) view.show(text.slice(0, i));
              view.show(text);
              new MarkdownView(b).show(text);
              return [a.innerHTML, b.innerHTML];
            }""",
            text,
        )
        assert grown == whole


def test_what_stands_already_is_not_drawn_again(modules: Page) -> None:
    kept = modules.evaluate(
        """async () => {
          const { MarkdownView } = await import('/page/markdown.js');
          const element = document.createElement('div');
          const view = new MarkdownView(element);
          view.show('# One\\n\\nfirst\\n\\nsec');
          const before = [...element.children];
          view.show('# One\\n\\nfirst\\n\\nsecond **bold');
          return before.map((child, i) => child === element.children[i]);
        }"""
    )
    assert kept == [True, True, False]


@pytest.mark.parametrize(
    "piece", ["*", "**a", "_a_ ", "[", "[a](", "`", "` `` ", "> ", "- ", "|a", "<http://", "![", "~~"]
)
def test_text_made_to_be_slow_is_not(modules: Page, piece: str) -> None:
    """The steps are counted, not the time: a square of 20,000 would not end within the test's patience."""
    assert modules.evaluate(
        """async (text) => {
          const { MarkdownView } = await import('/page/markdown.js');
          const element = document.createElement('div');
          new MarkdownView(element).show(text);
          return element.textContent.length > 0 || element.children.length > 0;
        }""",
        piece * (20_000 // len(piece)),
    )


EVENTS = [
    ('data: {"a": 1}\n\ndata: two\ndata: lines\n\n', ['{"a": 1}', "two\nlines"]),
    ("data:no space\r\n\r\ndata: x\r\rdata: y\n\n", ["no space", "x", "y"]),
    (": a comment\n\nevent: e\nid: 3\ndata: ünï🦙\n\ndata: never ended", ["ünï🦙"]),
    ("data\n\ndata:\n\n\n\n", ["", ""]),
]


@pytest.mark.parametrize(("text", "expected"), EVENTS)
def test_events_do_not_depend_on_how_they_are_cut(modules: Page, text: str, expected: list[str]) -> None:
    for seed in range(20):
        draw = random.Random(seed)
        cuts = sorted(draw.choices(range(len(text) + 1), k=draw.randrange(12)))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        found = modules.evaluate(
            """async (parts) => {
              const { SseParser } = await import('/page/sse.js');
              const parser = new SseParser();
              return parts.flatMap((part) => parser.push(part)).map((event) => event.data);
            }""",
            parts,
        )
        assert found == expected, parts


def calculate(page: Page, text: str) -> str:
    return page.evaluate(
        """async (text) => {
          const { calculate } = await import('/page/calculator.js');
          try { return calculate(text); } catch (error) { return `Error: ${error.message}`; }
        }""",
        text,
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", "7"),
        ("-2^2", "-4"),
        ("2^3^2", "512"),
        ("2 ** -1", "0.5"),
        ("2^100", str(2**100)),
        ("7 / 2", "3.5"),
        ("8 / 2", "4"),
        ("17 % 5", "2"),
        ("0.1 + 0.2", "0.3"),
        ("sqrt(2) * max(1, 3)", "4.2426406871193"),
        ("ABS(-3) + pi - pi", "3"),
        ("1_000 × 2 ÷ 4", "500"),
        ("1.5e3", "1500"),
        ("", "Error: something is missing at the end"),
        ("1 +", "Error: something is missing at the end"),
        ("(1", 'Error: ")" is missing at the end'),
        ("1 2", 'Error: "2" is not expected at 3'),
        ("1 / 0", "Error: division by zero"),
        ("1 % 0", "Error: division by zero"),
        ("sqrt(-1)", "Error: the result is not a number"),
        ("10 ^ 10 ^ 10", "Error: the result is too large"),
        ("alert(1)", 'Error: "alert" is not known'),
        ("constructor(1)", 'Error: "constructor" is not known'),
        ("1; 2", 'Error: ";" is not understood at 2'),
        ("(" * 300 + "1", "Error: the brackets go too deep"),
        ("-" * 300 + "1", "Error: the signs go too deep"),
    ],
)
def test_arithmetic(modules: Page, text: str, value: str) -> None:
    assert calculate(modules, text).startswith(value)
    if not value.startswith("Error"):
        assert calculate(modules, text) == value


def test_arithmetic_agrees_with_python(modules: Page) -> None:
    draw = random.Random(3)

    def expression(depth: int) -> str:
        if depth == 0 or draw.random() < 0.2:
            return str(draw.randrange(1, 50))
        return f"({expression(depth - 1)} {draw.choice('+-*')} {expression(depth - 1)})"

    for _ in range(60):
        text = expression(5)
        assert calculate(modules, text) == str(eval(text))


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (1, "mile", "km", 1.609344),
        (100, "celsius", "F", 212),
        (-40, "°F", "°C", -40),
        (1, "lbs", "kg", 0.45359237),
        (90, "km/h", "m/s", 25),
        (1, "GiB", "MB", 1073.741824),
        (2, "hours", "min", 120),
    ],
)
def test_units(modules: Page, value: float, source: str, target: str, expected: float) -> None:
    assert convert(modules, value, source, target) == expected


def test_units_that_measure_different_things_are_an_error(modules: Page) -> None:
    assert "do not measure the same" in convert(modules, 1, "km", "kg")
    assert "is not known" in convert(modules, 1, "furlong", "km")
    assert "not a number" in convert(modules, "many", "km", "m")


def convert(page: Page, value: Any, source: str, target: str) -> Any:
    return page.evaluate(
        """async ([value, from, to]) => {
          const { convert } = await import('/page/units.js');
          try { return convert(value, from, to); } catch (error) { return error.message; }
        }""",
        [value, source, target],
    )
