"""Main text out of HTML: what stays, what goes, its shape, formulas, metadata, encodings."""

from __future__ import annotations

import re

import pytest
from pages_html import BODY, CODE, FRAME, LEAD, NEWS, article

from herd.corpus.extract import extract


def between(inside: str) -> str:
    """What the text of a page holds between its two paragraphs."""
    text = extract(article(inside)).text
    assert text.startswith(BODY[0]), text
    assert text.endswith(BODY[1]), text
    return text[len(BODY[0]) : -len(BODY[1])].strip("\n")


def test_an_article_and_not_its_frame() -> None:
    page = extract(NEWS)
    assert page.title == "Harbour freezes"
    lines = [LEAD, BODY[0], "Salt and sand", BODY[1], "two sacks of salt\none cart of sand", BODY[2]]
    assert page.text == "\n\n".join(lines)


def test_code_keeps_its_shape_and_tables_their_rows() -> None:
    page = extract(CODE)
    assert page.title == "Loops"
    assert "for x in items:\n    if x < 3:\n        print(x)" in page.text
    assert "call\tresult\nrange(3)\t0, 1, 2" in page.text
    assert "¶" not in page.text
    assert "1\n2\n3" not in page.text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        (r'<p>Energy <script type="math/tex">E=mc^2</script> is.</p>', "Energy $E=mc^2$ is."),
        (r'<script type="math/tex; mode=display">\sum_{i<n} i</script>', r"$$\sum_{i<n} i$$"),
        (
            '<p>So <span class="katex"><span class="katex-mathml"><math><semantics><mrow><mi>a</mi></mrow><annotation '
            r'encoding="application/x-tex">a&lt;\beta</annotation></semantics></math></span><span class="katex-html" '
            'aria-hidden="true"><span class="base"><span>a</span></span></span></span> holds.</p>',
            r"So $a<\beta$ holds.",
        ),
        (
            '<p>Of <span class="mwe-math-element"><span style="display: none;"><math alttext="{\\displaystyle x^{2}}">'
            '<mi>x</mi></math></span><img src="x.svg" class="mwe-math-fallback-image-inline" alt="x^{2}">'
            "</span> it is said.</p>",
            "Of $x^{2}$ it is said.",
        ),
        (
            '<math display="block"><mfrac><mrow><mi>a</mi><mo>+</mo><mn>1</mn></mrow><msqrt><msub><mi>b</mi><mi>i</mi>'
            "</msub></msqrt></mfrac></math>",
            r"$$\frac{a + 1}{\sqrt{b_i}}$$",
        ),
        ('<p><img class="latex" src="1.png" alt="\\frac{1}{2}"></p>', r"\frac{1}{2}"),
        ('<p>The sign <img alt="alpha" src="a.gif"> stands for it.</p>', "The sign alpha stands for it."),
    ],
)
def test_formulas(html: str, text: str) -> None:
    assert between(html) == text


def test_what_mathjax_drew_does_not_stand_beside_its_source() -> None:
    drawn = '<span class="MathJax"><span class="math"><span>x</span></span></span>'
    assert between(f'<p>Let {drawn}<script type="math/tex">x</script> be small.</p>') == "Let $x$ be small."


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>one<br>two<br/>three", "one\ntwo\nthree"),
        ("<ul><li>first of them<li>second of them</ul>", "first of them\nsecond of them"),
        ("<h2>A heading</h2><p>It is said, here.</p>", "A heading\n\nIt is said, here."),
        ("<p><b>bold</b> and <em>more</em> text here.</p>", "bold and more text here."),
        ("<p>5 < 6 & 7 &gt; 3, or so they say.</p>", "5 < 6 & 7 > 3, or so they say."),
        ("<dl><dt>salt<dd>what the sea leaves</dl>", "salt\nwhat the sea leaves"),
        ('<div class="sidebar"><p>Some other story, told at length.</p></div>', ""),
        ('<div style="display:none"><p>Nobody reads this, ever at all.</p></div>', ""),
        ('<ul class="x"><li><a href="1">One page</a></li><li><a href="2">Another page</a></li></ul>', ""),
        ("<!-- a comment --><script>if (a < b) {}</script><noscript>Turn it on.</noscript>", ""),
        ("<table><tr><td>a<td>b<tr><td>c<td>d</table>", "a\tb\nc\td"),
    ],
)
def test_shapes(html: str, text: str) -> None:
    assert between(html) == text


def test_no_markdown_is_made() -> None:
    html = (
        "<h2>Title of it</h2><p><strong>a</strong> <em>b</em> <code>c</code>, and so on.</p><ul><li>item one, here</ul>"
    )
    assert not re.search(r"[#*_`]", extract(article(html)).text)


def test_a_name_does_not_condemn_the_whole_text() -> None:
    page = article("").replace("class=main", 'class="sidebar"')
    assert BODY[0] in extract(page).text


def test_a_forum_keeps_what_its_members_wrote() -> None:
    posts = "".join(f'<div class="comment"><p>{text}</p></div>' for text in BODY)
    assert all(text in extract(f"<body><div id=comments>{posts}</div>").text for text in BODY)


def test_metadata() -> None:
    meta = extract(NEWS, "https://harbour.example/x?y").meta
    assert (meta.published, meta.language, meta.canonical) == (
        "2024-02-03", "en-GB", "https://harbour.example/2024/harbour",
    )  # fmt: skip
    told = '<html><head><script type="application/ld+json">{"dateModified": "2021-05-06"}</script></head><p>x'
    assert extract(told).meta.modified == "2021-05-06"
    assert extract(
        '<link rel=canonical href="javascript:alert(1)"><meta name=date content="soon"><html lang="?">'
    ).meta == (extract("").meta)


def test_frames_are_left_out_of_every_language() -> None:
    assert not any(text in extract(NEWS).text for text in FRAME)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-16-le", "utf-16-be", "cp1252", "shift_jis", "koi8-r", "tis-620", "gbk"]
)
def test_encodings(encoding: str) -> None:
    words = {"shift_jis": "日本語の文章。", "koi8-r": "Русский текст", "tis-620": "ภาษาไทย", "gbk": "中文文章"}
    text = words.get(encoding, "Größe und Übermut") + ". " + BODY[0]
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    declared = "" if mark else f"<meta http-equiv=Content-Type content='text/html; charset={encoding}'>"
    assert extract(mark + f"{declared}<p>{text}</p>".encode(encoding)).text == text


@pytest.mark.parametrize("label", ["rot13", "hex", "utf-7", "punycode", "no-such", "x" * 30])
def test_a_label_that_is_no_encoding_of_the_web_is_passed_over(label: str) -> None:
    assert extract(f"<meta charset={label}><p>Grüße, {BODY[0]}</p>".encode()).text == f"Grüße, {BODY[0]}"


def test_undeclared_pages_are_decoded_by_what_they_look_like() -> None:
    text = "Die Größe des Übermuts überrascht die Gäste, während draußen Bäume blühen und Vögel singen. " * 3
    assert extract(f"<p>{text}</p>".encode("cp1252")).text == text.strip()
