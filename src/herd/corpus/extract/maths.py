"""Formulas of a page -> TeX in its running text, before the page is read.

TeX is taken where the page still has it: in MathJax's scripts, in the annotation or alttext of MathML (KaTeX,
MediaWiki, LaTeXML), in the alt text of images. MathML without TeX is written as TeX from its elements. What a program
drew from the same formula goes, so that a formula stands once. Inline formulas stand in $...$, displayed in $$...$$.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape, unescape

from herd.corpus.extract.scan import attributes, tags

_MARKS = ("</math", "math/tex", "MathJax")
_SCRIPT = re.compile(r"<script\b([^>]{0,200}?math/tex[^>]{0,200})>(.*?)</script", re.DOTALL)
_WRAPPING = re.compile(r"%?\s*<!\[CDATA\[|%?\s*\]\]>")
_MATHML = re.compile(r"<math\b([^>]*+)>(.*?)</math", re.DOTALL)
_ANNOTATION = re.compile(r"<annotation\b[^>]{0,200}?tex[^>]{0,200}>(.*?)</annotation", re.DOTALL)
_LONGEST = 20_000  # characters of one formula
_DRAWN = re.compile(
    r"<(?:span|div)\b[^>]{0,200}\bclass\s*=\s*[\"']"
    r"(?:katex-html|MathJax(?:_Preview|_SVG|_CHTML|_Display|_SVG_Display)?|mjx-chtml)\b[^>]*+>"
)
_FALLBACK = re.compile(r"<img\b[^>]{0,400}\bmwe-math-fallback-image[^>]*+>")
_SPAN_OR_DIV = re.compile(r"<(/?)(?:span|div)\b")
_STYLE = re.compile(r"^\{\\(?:displaystyle|textstyle)\s*(.*)\}$", re.DOTALL)  # MediaWiki puts it around
_IMAGE_CLASS = re.compile(r"(?i)\b(?:la)?tex\b|math|formula|equation|codecogs")
_TEX = re.compile(r"\\[a-zA-Z]{2,}|[_^]\{|\$[^$]+\$|^[^a-z]*[a-z]\s*[=<>]|\w\^\w")


def with_formulas(html: str) -> str:
    """The page with its formulas as text; pages without any come back as they are."""
    if not any(mark in html for mark in _MARKS):
        return html
    html = _without_drawn(html)
    if "<math" in html:
        html = _FALLBACK.sub(" ", html) if "</annotation" in html or "alttext" in html else html
        html = _replaced(_MATHML, _mathml, html, "</math")
    return _replaced(_SCRIPT, _script, html, "</script")


def _replaced(pattern: re.Pattern[str], write: Callable[[re.Match[str]], str], html: str, end: str) -> str:
    """Substitution up to the last end tag: behind it every start tag would search the rest of the page for one."""
    closed, last, rest = html.rpartition(end)
    return pattern.sub(write, closed + last) + rest


def _script(found: re.Match[str]) -> str:
    return _formula(_WRAPPING.sub("", unescape(found[2][:_LONGEST])), "display" in found[1]) + "<i"


def image_formula(written: str, alt: str) -> bool:
    """Whether an image shows a formula that its alt text spells."""
    return bool(_TEX.search(alt)) or bool(_IMAGE_CLASS.search(written))


def _formula(tex: str, display: bool) -> str:
    tex = " ".join(tex.split())
    inner = _STYLE.match(tex)
    tex = inner[1].strip() if inner else tex
    sign = "$$" if display else "$"
    return f" {sign}{escape(tex, quote=False)}{sign} " if tex else " "


def _without_drawn(html: str) -> str:
    """The page without the boxes that KaTeX and MathJax drew, whole elements with what is nested in them."""
    parts, done, place = [], 0, 0
    while drawn := _DRAWN.search(html, place):
        place = _end_of(html, drawn.end())
        if place < 0:  # never closed: nor is any after it
            break
        parts.append(html[done : drawn.start()])
        done = place
    return "".join([*parts, html[done:]]) if parts else html


def _end_of(html: str, place: int) -> int:
    """Behind the end tag of the element that began before `place`; -1 without one."""
    depth = 1
    for found in _SPAN_OR_DIV.finditer(html, place):
        depth += -1 if found[1] else 1
        if not depth:
            return html.find(">", found.end()) + 1 or len(html)
    return -1


def _mathml(found: re.Match[str]) -> str:
    """The formula, and the beginning of a harmless tag that the ">" of the end tag closes."""
    told, inside = attributes(found[1]), found[2][:_LONGEST]
    annotated = _ANNOTATION.search(inside)
    tex = unescape(annotated[1] if annotated else told.get("alttext", "")) or linear(inside)
    return _formula(tex, told.get("display") == "block") + "<i"


def _group(text: str) -> str:
    return text if len(text) == 1 else f"{{{text}}}"


def _two(form: str) -> Callable[[list[str]], str]:
    return lambda parts: form.format(*parts) if len(parts) == form.count("{}") else " ".join(parts)


_FORMS: dict[str, Callable[[list[str]], str]] = {
    "mfrac": _two("\\frac{{{}}}{{{}}}"),
    "mroot": lambda parts: f"\\sqrt[{parts[1]}]{{{parts[0]}}}" if len(parts) == 2 else " ".join(parts),
    "msqrt": lambda parts: f"\\sqrt{{{' '.join(parts)}}}",
    "msup": lambda parts: "^".join(map(_group, parts)) if len(parts) == 2 else " ".join(parts),
    "msub": lambda parts: "_".join(map(_group, parts)) if len(parts) == 2 else " ".join(parts),
    "msubsup": _two("{{{}}}_{{{}}}^{{{}}}"),
    "munderover": _two("{{{}}}_{{{}}}^{{{}}}"),
    "munder": _two("{{{}}}_{{{}}}"),
    "mover": _two("{{{}}}^{{{}}}"),
    "mtable": lambda parts: " \\\\ ".join(parts),
    "mtr": lambda parts: " & ".join(parts),
    "annotation": lambda parts: "",
    "annotation-xml": lambda parts: "",
}


def linear(mathml: str) -> str:
    """The content of <math> as TeX: fractions, roots, scripts and tables; other elements are their content in a row."""
    stack: list[tuple[str, list[str]]] = [("math", [])]
    for _, closing, name, written, text in tags(mathml)[1:]:
        name = name.lower().rpartition(":")[2]
        if not closing and not written.endswith("/"):
            stack.append((name, []))
        elif closing and len(stack) > 1:
            ended, parts = stack.pop()
            written_out = _FORMS.get(ended, " ".join)(parts)
            if written_out:
                stack[-1][1].append(written_out)
        if text.strip():
            stack[-1][1].append(" ".join(unescape(text).split()))
    while len(stack) > 1:
        _, parts = stack.pop()
        stack[-1][1].extend(parts)
    return " ".join(stack[0][1])
