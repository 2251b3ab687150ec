"""Inside the main element: what is no part of the text although it stands in it.

Lists of links and lone links (link density), lines such as "Read also", labels before the first and behind the last
running text, headings over nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from herd.corpus.extract.score import running
from herd.corpus.extract.tree import HEADINGS, Block, Element

_LINKS, _TABLE_LINKS = 0.5, 0.7  # share of an element's characters that are links
_LONE_LINK = 0.8
_PHRASE_LINE = 120  # characters: a longer line is a sentence that happens to begin so
_PHRASE_WORD = 30  # the same where the phrase is one word
_REPEATED, _TIMES = frozenset(("pre", "td", "th", "li", "dt", "dd")), 2  # a line that a page says more often is a label
_TITLE_SCORE = 200.0  # a longer block with the words of the title is text
_RIGHTS, _RIGHTS_LINE = re.compile(r"©|\(c\) ?(?:19|20)\d\d|(?i:\ball rights reserved)"), 200
_ENDED = re.compile(r"[.!?…。！？।]['\"”’»)]*$")
_KEPT_LABELS = HEADINGS | {"li", "td", "th", "dt", "dd", "pre", "caption"}
_NO_GROUP = HEADINGS | {"p", "li", "td", "th", "tr", "tbody", "pre", "dt", "dd"}


def prune(
    elements: Sequence[Element], blocks: Sequence[Block], scores: Sequence[float], kept: bytearray, title: str
) -> None:
    """Clear the marks of the blocks that are no text; `kept` has one mark a block."""
    _link_groups(elements, blocks, kept)
    times = Counter(block.text for block in blocks if block.element.name not in _REPEATED)
    for index, block in enumerate(blocks):
        if kept[index]:
            told = _lone_link(block) or _is_phrase(block.text) or (scores[index] <= 0 and times[block.text] > _TIMES)
            kept[index] = not (told or (block.text == title and scores[index] <= _TITLE_SCORE))
    _outer_labels(blocks, scores, kept)
    _empty_headings(blocks, kept)


def _link_groups(elements: Sequence[Element], blocks: Sequence[Block], kept: bytearray) -> None:
    """Lists, boxes and tables that consist of links, unless the page does."""
    sizes = running([len(block.text) * mark for block, mark in zip(blocks, kept, strict=True)])
    links = running([block.linked * mark for block, mark in zip(blocks, kept, strict=True)])
    for element in elements:
        if element.last - element.first < 2 or element.name in _NO_GROUP:
            continue
        size, linked = (sums[element.last] - sums[element.first] for sums in (sizes, links))
        if linked > size * (_TABLE_LINKS if element.name == "table" else _LINKS) and size < 0.5 * sizes[-1]:
            kept[element.first : element.last] = bytes(element.last - element.first)


def _lone_link(block: Block) -> bool:
    return block.linked > _LONE_LINK * len(block.text) and block.element.name not in _KEPT_LABELS


@cache
def _phrases() -> re.Pattern[str]:
    """Beginnings of lines that lead away from the text, in all languages: pages quote each other's."""
    lists = json.loads((files("herd.corpus") / "data/extraction.json").read_text("utf-8"))["phrases"]
    phrases = (
        r"\s".join(map(re.escape, phrase.split())) for phrase in sorted({p for some in lists.values() for p in some})
    )
    return re.compile(rf"[\W_]*(?:{'|'.join(phrases)})(?!\w)", re.IGNORECASE)


def _is_phrase(text: str) -> bool:
    if len(text) <= _RIGHTS_LINE and _RIGHTS.search(text):
        return True
    found = _phrases().match(text) if len(text) <= _PHRASE_LINE else None
    return found is not None and (" " in found[0].strip() or found[0].endswith(":") or len(text) <= _PHRASE_WORD)


def _outer_labels(blocks: Sequence[Block], scores: Sequence[float], kept: bytearray) -> None:
    """Labels before the first running text and behind the last: dates, names, tags."""
    for order in (range(len(blocks)), range(len(blocks) - 1, -1, -1)):
        for index in order:
            if not kept[index]:
                continue
            if scores[index] > 0:
                break
            block = blocks[index]
            sentence = block.element.name == "p" and not block.linked and _ENDED.search(block.text)
            if scores[index] < 0 and block.element.name not in _KEPT_LABELS and not sentence:
                kept[index] = 0


def _empty_headings(blocks: Sequence[Block], kept: bytearray) -> None:
    """Headings that nothing follows but a heading of their level or a higher one."""
    level = 0  # of what follows; 9 is text
    for index in range(len(blocks) - 1, -1, -1):
        if not kept[index]:
            continue
        name = blocks[index].element.name
        if name not in HEADINGS:
            level = 9
        elif int(name[1]) >= level:
            kept[index] = 0
        else:
            level = int(name[1])
