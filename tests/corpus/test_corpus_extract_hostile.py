"""Extraction of pages that nobody wrote to be read: no crash, time in proportion, text as browsers see it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages_html import BODY, article
from resiliparse.extract.html2text import extract_plain_text

from herd.corpus.extract import extract
from herd.corpus.extract.scan import MAX_CHARACTERS, attributes, tags
from herd.corpus.extract.tree import build

_TAGS = (
    "div",
    "p",
    "b",
    "a href=x",
    "ul",
    "li",
    "table",
    "tr",
    "td",
    "pre",
    "h2",
    "br",
    "span class=x",
    "section",
    "math",
    "dd",
)
_PIECES = st.sampled_from(
    [f"<{tag}>" for tag in _TAGS]
    + [f"</{tag.split()[0]}>" for tag in _TAGS]
    + [
        "<",
        ">",
        "</",
        "<!--",
        "-->",
        "&",
        "&amp;",
        '"',
        "'",
        "=",
        "word ",
        "Two words, and more. ",
        "\x00",
        "<script>",
        "</script>",
    ]
)
_LARGE = {
    "nested": "<div>" * 100_000 + BODY[0],
    "nested lists": "<ul><li><p>" * 30_000 + BODY[0],
    "ends without starts": "<section>" + "<div>" * 600 + "</p></section></b>" * 30_000 + BODY[0],
    "ends beyond a cell": "<section><table><tr><td>" + "<div>" * 500 + "</section>" * 20_000 + f"<p>{BODY[0]}",
    "quotes": '<a x=">"' * 100_000,
    "open tags": "<a " * 200_000,
    "comments": "<!--" * 200_000,
    "scripts": "<script>" * 100_000,
    "formulas": "</math>" + "<math>" * 100_000,
    "drawn formulas": '<span class="MathJax">' * 50_000,
    "one formula": "<math>" + "<msqrt>" * 50_000 + "</math>",
    "annotations": "<math>" + "<annotation " * 50_000 + "</math>",
    "blanks in a script": "<script type=math/tex>" + " " * 500_000 + "</script>",
    "names inside names": "".join(f'<div class="sidebar x{i}">' for i in range(500)) + f"<p>{BODY[0]}" * 5_000,
    "table": "<table>" + ("<tr>" + "<td>1</td>" * 20 + "</tr>") * 3_000 + "</table>",
    "attributes": "<div " + "a=b " * 200_000 + f"><p>{BODY[0]}",
    "one class": '<div class="' + "x " * 300_000 + f'"><p>{BODY[0]}',
    "long": f"<p>{BODY[0]}</p>" * 60_000,
}


@pytest.mark.parametrize("name", _LARGE)
def test_large_hostile_pages(name: str) -> None:
    page = _LARGE[name]
    text = extract(page).text
    assert (BODY[0] in text) == (BODY[0] in page)


@given(st.binary(max_size=400))
def test_any_bytes(page: bytes) -> None:
    extract(page)


@given(st.lists(_PIECES, max_size=60).map("".join))
def test_any_markup(page: str) -> None:
    found = extract(page, "http://[")
    assert "\x00" not in found.text
    assert found.text == found.text.strip("\n")


@given(
    st.lists(
        st.sampled_from(
            ["<div>", "</div>", "<p>", "</p>", "<b>", "</b>", "<li>", "</ul>", "<ul>", "</li>", "alpha ", "beta "]
        ),
        max_size=40,
    )
)
def test_the_words_are_those_that_a_browsers_parser_sees(pieces: list[str]) -> None:
    page = "<body>" + "".join(pieces)
    ours = " ".join(block.text for block in build(tags(page)).blocks)
    theirs = extract_plain_text(page, list_bullets=False, main_content=False, preserve_formatting=False)
    assert re.findall(r"\w+", ours) == re.findall(r"\w+", theirs)


@given(
    st.lists(
        st.tuples(st.from_regex(r"\A[a-z][a-z0-9-]{0,8}\Z"), st.text(alphabet="abc =>'<&/!- ", max_size=12)), max_size=5
    )
)
def test_attributes_are_read_as_they_were_written(pairs: list[tuple[str, str]]) -> None:
    written = " ".join(f'{name}="{value}"' for name, value in pairs)
    first: dict[str, str] = {}
    for name, value in pairs:
        first.setdefault(name, value)
    assert attributes(written) == first
    assert tags(f"<i {written}>text")[1][-1] == "text"


def test_the_end_of_an_endless_page_is_not_read() -> None:
    page = article("x" * MAX_CHARACTERS)
    assert BODY[1] not in extract(page).text


@pytest.mark.parametrize(
    "page", ["", b"", " ", "<html></html>", "<p></p>", "<br>", "text", b"\xff\xfe", b"\xef\xbb\xbf", "</", "<!"]
)
def test_nothing_to_read(page: str | bytes) -> None:
    assert extract(page).text in ("", "text")
