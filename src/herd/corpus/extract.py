"""HTML -> its main text: navigation, forms and scripts go, code and preformatted blocks keep their shape.

The parser and the main-content rules are resiliparse's. Image alt texts are kept (formulas often live there), markdown
is not produced (Llama 3, section 3.1.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding
from resiliparse.parse.html import HTMLTree

_MIN_MAIN_SHARE = 0.15  # main content smaller than this part of the page: the rules took the text for boilerplate
_MIN_MAIN_CHARACTERS = 200
_BLANKS = re.compile(r"\n{3,}")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    text: str


def extract(html: str | bytes) -> Page:
    """The title and the main text of a page; both may be empty. Broken HTML is repaired as a browser would."""
    if isinstance(html, bytes):
        encoding = detect_encoding(html[: 1 << 16], from_html_meta=True) or "utf-8"
        html = html.decode(encoding, "replace")
    tree = HTMLTree.parse(html)
    everything = _plain(tree, main_content=False)
    main = _plain(tree, main_content=True)
    if len(main) < _MIN_MAIN_CHARACTERS and len(main) < _MIN_MAIN_SHARE * len(everything):
        main = everything
    return Page(" ".join((tree.title or "").split()), main)


def _plain(tree: HTMLTree, main_content: bool) -> str:
    text = extract_plain_text(
        tree, preserve_formatting=True, main_content=main_content, list_bullets=True, alt_texts=True, comments=False
    )
    return _BLANKS.sub("\n\n", _TRAILING.sub("", text.replace("\xa0", " "))).strip("\n")
