"""HTML -> a page: main text and what the page says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from herd.corpus.extract.decode import decode
from herd.corpus.extract.maths import with_formulas
from herd.corpus.extract.metadata import Metadata, metadata, without_site
from herd.corpus.extract.prune import prune
from herd.corpus.extract.render import render
from herd.corpus.extract.scan import MAX_CHARACTERS, tags
from herd.corpus.extract.score import HEADINGS, block_score, frame, main_element
from herd.corpus.extract.tree import Block, Builder, build

_LEAST, _LEAST_SHARE = 200, 0.15  # less text, and less of the page's: it is no article, all but its frame is taken


@dataclass(frozen=True, slots=True)
class Page:
    """`title` is the page's heading where its title repeats it; the text does not begin with it again."""

    title: str
    text: str
    meta: Metadata = field(default_factory=Metadata)


def extract(html: str | bytes, url: str = "") -> Page:
    """The title, the main text and the metadata of a page; each may be empty. Broken HTML is no error."""
    page = decode(html) if isinstance(html, bytes) else html
    page = page[:MAX_CHARACTERS].replace("\x00", "")
    found = tags(with_formulas(page))
    told = metadata(found, page, url)
    built = build(found)
    kept = _main(built)
    title = _heading(built.blocks, kept, told.title)
    return Page(title, render(block for block, mark in zip(built.blocks, kept, strict=True) if mark), told)


def _heading(blocks: list[Block], kept: bytearray, title: str) -> str:
    """The title without the name of its site, or the first heading; the text does not keep what says the same."""
    for block, mark in zip(blocks, kept, strict=True):
        if block.element.name == "h1":
            title = without_site(title, block.text) or " ".join(block.text.split())
        if mark:
            break
    first = kept.find(1)
    if first >= 0 and blocks[first].element.name in HEADINGS and " ".join(blocks[first].text.split()) == title:
        kept[first] = 0
    return title


def _main(built: Builder) -> bytearray:
    """One mark a block: 1 for the main text."""
    blocks, elements = built.blocks, built.elements
    scores = [block_score(block) for block in blocks]
    inside = bytearray(b"\x01" * len(blocks))
    for first, last in frame(elements, blocks, scores):
        inside[first:last] = bytes(last - first)
    scores = [score * mark for score, mark in zip(scores, inside, strict=True)]
    root = main_element(elements, scores)
    kept = bytearray(len(blocks))
    kept[root.first : root.last] = inside[root.first : root.last]
    prune(elements, blocks, scores, kept)
    size = _size(blocks, kept)
    if size < _LEAST and size < _LEAST_SHARE * _size(blocks, inside):
        kept = inside
    return kept


def _size(blocks: list[Block], marks: bytearray) -> int:
    return sum(len(block.text) for block, mark in zip(blocks, marks, strict=True) if mark)
