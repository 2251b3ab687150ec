"""Which element holds the main text: the one whose blocks score most together.

A block of running text scores by its characters, a label or a link costs a little (text density and link density:
Kohlschuetter et al. 2010, Boilerplate Detection using Shallow Text Features). The text is the subtree of greatest sum:
the contiguous stretch of greatest sum of Pasternack and Roth 2009 (Extracting Article Text from the Web with Maximum
Subsequence Segmentation), bound to elements, because authors put an article into one. Names of elements weigh in as in
Arc90's Readability.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate

from herd.corpus.extract.names import Role
from herd.corpus.extract.tree import HEADINGS, Block, Element

_ENDED = re.compile(r"[.!?…。！？।։؟۔][\"'”’»)\]]*$")
_PHRASED = re.compile(r"[^\W\d_]{2}[,;:] |[^\W\d_]{2}[.!?] [\W\d]*[A-ZÀ-Þ]|[，、،。]|[:;]$")
_IDEOGRAMS = re.compile(r"[\u3040-\u9fff\uac00-\ud7af].*[。！？.]")
_TINY, _SHORT, _MIDDLE, _LONG, _MOST = (
    12,
    30,
    60,
    120,
    800,
)  # characters: a label; a paragraph; what one block can weigh
_LABEL, _LINK_HEADING = -12.0, -80.0
_MAIN_BONUS = 1.25
_WHOLE, _TEASERS = 0.65, 2.0  # share of the score to keep; text lost for each unit of labels and links lost
_OVERRULED, _FORUM = 0.5, 0.9  # of the page's text: more than that is no frame, whatever its name
_ROUNDS = 16  # of names inside names that are overruled
_LEAVES = HEADINGS | {
    "p",
    "li",
    "dt",
    "dd",
    "tr",
    "pre",
    "caption",
    "figcaption",
    "figure",
    "ul",
    "ol",
}  # hold no article


def block_score(block: Block) -> float:
    """Positive for running text, negative for labels and links."""
    text, linked, name = block.text, block.linked, block.element.name
    size = len(text)
    if name in HEADINGS:
        return _LINK_HEADING if linked > 0.8 * size else 0.0
    if name == "pre":
        return min(size, _MOST) / 2
    if linked > 0.5 * size:
        return _LABEL - min(linked, 200) / 4
    if size - linked >= _LONG or (
        size >= _SHORT and (_ENDED.search(text) or (size >= _MIDDLE and _PHRASED.search(text)))
    ):
        return float(min(size, _MOST) - 2 * linked)
    if size >= _TINY and not text.isascii() and _IDEOGRAMS.search(text):
        return float(2 * size)
    return 0.0 if name in ("td", "th", "li", "dt", "dd") and not linked else _LABEL


def frame(elements: Sequence[Element], blocks: Sequence[Block], scores: Sequence[float]) -> list[tuple[int, int]]:
    """Ranges of blocks that names say are no text.

    A name is judged by all elements that bear it: one with most of what reads like text is none of a frame. Comments
    stay out unless nearly nothing else is there: a forum.
    """
    sums = running([max(score, 0.0) for score in scores])
    overruled = _without_links(elements, blocks)
    for _ in range(_ROUNDS):
        named = list(_named(elements, overruled))
        shares: dict[str, float] = {}
        for element in named:
            shares[element.written] = shares.get(element.written, 0.0) + sums[element.last] - sums[element.first]
        wrong = {
            element.written
            for element in named
            if shares[element.written] > sums[-1] * (_FORUM if element.role is Role.COMMENTS else _OVERRULED)
        }
        if not wrong:
            return [(element.first, element.last) for element in named]
        overruled |= wrong
    return []


def _without_links(elements: Sequence[Element], blocks: Sequence[Block]) -> set[str]:
    """Names of what leads elsewhere, on elements that do not."""
    links = running([block.linked for block in blocks])
    named = [element for element in elements if element.role is Role.LINKED]
    return {element.written for element in named if links[element.last] == links[element.first]}


def _named(elements: Sequence[Element], overruled: set[str]) -> Iterator[Element]:
    """The outermost elements with names of a frame."""
    end = 0
    for element in elements:
        named = element.role > Role.MAIN and element.written not in overruled
        if named and element.first >= end and element.last > element.first:
            end = element.last
            yield element


def running(scores: Sequence[float]) -> list[float]:
    """Sums of the first 0, 1, ... n scores."""
    return [0.0, *accumulate(scores)]


def main_element(elements: Sequence[Element], scores: Sequence[float]) -> Element:
    """The element whose blocks score most; named ones a little more than others."""
    sums = running(scores)

    def total(element: Element) -> float:
        score = sums[element.last] - sums[element.first]
        return score * _MAIN_BONUS if element.role is Role.MAIN else score

    best, most = elements[0], total(elements[0])
    for element in elements:
        if element.name in _LEAVES:
            continue
        score = total(element)
        if score >= most:  # the innermost of equals
            best, most = element, score
    return _tightest(best, elements, scores, sums)


def _tightest(best: Element, elements: Sequence[Element], scores: Sequence[float], sums: Sequence[float]) -> Element:
    """An element inside that loses little text and much frame: of a column with an article and teasers, the article."""
    positive = running([max(score, 0.0) for score in scores])
    for element in elements[elements.index(best) + 1 :]:
        if best.role is Role.MAIN or element.first >= best.last:
            break
        if element.name in _LEAVES or element.last - element.first == best.last - best.first:
            continue
        whole, inner = sums[best.last] - sums[best.first], sums[element.last] - sums[element.first]
        text = positive[best.last] - positive[best.first] - (positive[element.last] - positive[element.first])
        labels = text - (whole - inner)
        if inner >= _WHOLE * whole and text < _TEASERS * labels:
            best = element
    return best
