"""HTML -> a page: main text and what the page says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from herd.corpus.extract.decode import decode
from herd.corpus.extract.maths import with_formulas
from herd.corpus.extract.metadata import Metadata, metadata, without_site
from herd.corpus.extract.prune import prune
from herd.corpus.extract.render import render
from herd.corpus.extract.scan import MAX_CHARACTERS, tags
from herd.corpus.extract.score import block_score, frame, main_element
from herd.corpus.extract.tree import Block, Builder, build

_NEAR, _LEAD = 30, 60.0  # blocks between a heading and its text; score of a lead
_LEAST_SHARE = 0.15  # of what reads like text: with less it is no article, and all but its frame is taken


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
    scores, kept = _main(built)
    title = _title(built.blocks, scores, kept, told.title)
    pruned = bytearray(kept)
    prune(built.elements, built.blocks, scores, pruned, title)
    kept = pruned if _text(scores, pruned) >= _LEAST_SHARE * _text(scores, kept) and any(pruned) else kept
    return Page(title, render(block for block, mark in zip(built.blocks, kept, strict=True) if mark), told)


def _title(blocks: list[Block], scores: list[float], kept: bytearray, title: str) -> str:
    """The title without the name of its site: the first heading up to the running text, where both say the same."""
    for block, score, mark in zip(blocks, scores, kept, strict=True):
        if block.element.name == "h1":
            return without_site(title, block.text) or " ".join(block.text.split())
        if mark and score > 0:
            break
    return title


def _main(built: Builder) -> tuple[list[float], bytearray]:
    """(scores, one mark a block: 1 for the main text)."""
    blocks, elements = built.blocks, built.elements
    scores = [block_score(block) for block in blocks]
    inside = bytearray(b"\x01" * len(blocks))
    for first, last in frame(elements, blocks, scores):
        inside[first:last] = bytes(last - first)
    scores = [score * mark for score, mark in zip(scores, inside, strict=True)]
    root = main_element(elements, scores)
    kept = bytearray(len(blocks))
    kept[root.first : root.last] = inside[root.first : root.last]
    for index in _lead(blocks, scores, root.first):
        kept[index] = 1
    if not any(kept) or _text(scores, kept) < _LEAST_SHARE * _text(scores, inside):
        kept = inside
    return scores, kept


def _lead(blocks: list[Block], scores: list[float], start: int) -> list[int]:
    """Running text between the heading of the page and its main element: a standfirst in a header of its own."""
    near = range(start - 1, max(start - _NEAR, -1), -1)
    heading = next((index for index in near if blocks[index].element.name == "h1"), start)
    return [index for index in range(heading + 1, start) if scores[index] >= _LEAD and not blocks[index].linked]


def _text(scores: list[float], marks: bytearray) -> float:
    """How much of the marked blocks reads like text."""
    return sum(score for score, mark in zip(scores, marks, strict=True) if mark and score > 0)
