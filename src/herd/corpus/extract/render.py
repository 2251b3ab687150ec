"""Blocks -> plain text: paragraphs apart by a blank line, items of a list and rows of a table by a line, cells by tabs.

No markdown: Llama 3, section 3.1.1, found that its marks hurt a model that reads mostly web pages.
"""

from __future__ import annotations

from collections.abc import Iterable

from herd.corpus.extract.tree import Block, Element

_ITEMS = frozenset(("li", "dd", "dt", "tr", "td", "th", "caption"))


def render(blocks: Iterable[Block]) -> str:
    parts: list[str] = []
    before: Element | None = None
    for block in blocks:
        element = _unit(block.element)
        if before is not None:
            parts.append(_between(before, element))
        parts.append(block.text)
        before = element
    return "".join(parts)


def _unit(element: Element) -> Element:
    """The cell or item that a block is in, if it is in its paragraph alone."""
    parent = element.parent
    if element.name in ("p", "div") and parent is not None and parent.name in _ITEMS:
        return parent
    return element


def _between(before: Element, after: Element) -> str:
    if before.name in ("td", "th") and after.name in ("td", "th") and before.parent is after.parent:
        return "\n" if before is after else "\t"
    return "\n" if before.name in _ITEMS and after.name in _ITEMS else "\n\n"
