"""Tags -> blocks of text in the elements that hold them.

A block is a stretch of text that nothing but inline tags interrupts: a paragraph, a heading, a cell. An element knows
the range of blocks below it, so that sums over an element are differences of running sums. End tags that authors leave
out are closed as the HTML standard says (section 13.1.2.4); deeper nesting than a browser builds is flattened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import unescape

from herd.corpus.extract.maths import image_formula
from herd.corpus.extract.names import Role, role_of
from herd.corpus.extract.scan import Tag, attributes

_MAX_DEPTH = 512  # Blink's limit (html_tree_builder): deeper elements are siblings there
_BLOCKS = frozenset(
    ("address", "article", "aside", "blockquote", "body", "button", "caption", "center", "dd", "details", "dialog",
     "dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
     "header", "hgroup", "html", "legend", "li", "main", "menu", "nav", "ol", "p", "pre", "section", "summary", "table",
     "tbody", "td", "tfoot", "th", "thead", "title", "tr", "ul")
)  # fmt: skip
_ENDS_PRE = frozenset(("h1", "h2", "h3", "h4", "p", "table", "section", "article", "ul", "ol"))  # it was left open
_ENDS_P = _BLOCKS - {"button", "td", "th", "tr", "tbody", "thead", "tfoot", "caption", "html", "body", "title"}
# An element of the key ends an open one of the first set, looked for no further up than the second.
_ENDS = {
    "li": ({"li"}, {"ul", "ol", "menu", "dir"}), "dt": ({"dt", "dd"}, {"dl"}), "dd": ({"dt", "dd"}, {"dl"}),
    "td": ({"td", "th"}, {"tr", "table"}), "th": ({"td", "th"}, {"tr", "table"}),
    "tr": ({"tr"}, {"table"}), "tbody": ({"tbody", "thead"}, {"table"}), "tfoot": ({"tbody", "thead"}, {"table"}),
}  # fmt: skip
_INLINES = (
    "abbr",
    "b",
    "cite",
    "code",
    "em",
    "font",
    "i",
    "input",
    "label",
    "link",
    "meta",
    "small",
    "source",
    "span",
    "strong",
    "sub",
    "sup",
    "time",
    "u",
)  # the common ones; others are found by having no other kind
_INLINE, _BLOCK, _LINK, _BREAK, _IMAGE, _RULE, _OTHER = range(7)
_KINDS = (
    dict.fromkeys(_BLOCKS, _BLOCK)
    | {"a": _LINK, "br": _BREAK, "img": _IMAGE, "hr": _RULE}
    | dict.fromkeys(_INLINES, _INLINE)
)
_KINDS |= {name.upper(): kind for name, kind in _KINDS.items()}
HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_PERMALINK = re.compile(r"\s*(?:[¶#§🔗]|\[ ?(?:edit|bearbeiten|modifier|modifica|editar|संपादित|แก้ไข)[^\]]{0,40}\])+$")
_BREAK_MARK = "\x00"  # the standard lets no page hold it


class Element:
    __slots__ = ("first", "last", "name", "parent", "role", "written")

    def __init__(self, name: str, parent: Element | None, role: Role, written: str, first: int) -> None:
        self.name, self.parent, self.role, self.written = name, parent, role, written
        self.first = self.last = first  # blocks [first, last)


class Block:
    """`linked`: how many of the text's characters are links."""

    __slots__ = ("element", "linked", "text")

    def __init__(self, text: str, element: Element, linked: int) -> None:
        self.text, self.element, self.linked = text, element, linked


class Builder:
    """Elements in document order and their blocks."""

    def __init__(self) -> None:
        self.elements: list[Element] = [Element("html", None, Role.NONE, "", 0)]
        self.blocks: list[Block] = []
        self._open = list(self.elements)
        self._flattened: dict[str, int] = {}
        self._parts: list[str] = []
        self._linked = 0
        self._never = 0  # depth at which an element began that holds no text
        self._pre = 0

    def read(self, tags: Iterable[Tag]) -> None:
        kinds, parts, link = _KINDS, self._parts, False
        for _, closing, name, written, text in tags:
            kind = kinds.get(name, _OTHER)
            if kind == _INLINE:
                pass
            elif kind == _BLOCK or (kind == _OTHER and "-" in name):
                (self._close if closing else self._start)(name if name.islower() else name.lower(), written)
            elif kind == _LINK:
                link = not closing and "href" in written
            elif kind == _BREAK:
                parts.append("\n" if self._pre else _BREAK_MARK)
            elif kind == _IMAGE:
                self._alt(written)
            elif kind == _RULE:
                self._flush()
            if text and (parts or self._pre or not text.isspace()):
                parts.append(text)
                if link:
                    self._linked += len(text.strip())
        self._flush()
        self._pop_to(0)

    def _start(self, name: str, written: str) -> None:
        if self._pre and name in _ENDS_PRE:
            self._flush()
            self._pop_to(self._pre - 1)
        elif self._pre and name != "pre":
            return
        if self._parts:
            self._flush()
        if self._open[-1].name == "p" and name in _ENDS_P:
            self._pop()
        if name in _ENDS:
            self._end_siblings(*_ENDS[name])
        if len(self._open) >= _MAX_DEPTH:
            self._flattened[name] = self._flattened.get(name, 0) + 1
            return
        role = Role.NEVER if self._never else role_of(name, written)
        element = Element(name, self._open[-1], role, written, len(self.blocks))
        self._open.append(element)
        self.elements.append(element)
        if role is Role.NEVER and not self._never:
            self._never = len(self._open)
        if name == "pre":
            self._pre = len(self._open)

    def _end_siblings(self, ended: set[str], scope: set[str]) -> None:
        for depth in range(len(self._open) - 1, 0, -1):
            name = self._open[depth].name
            if name in ended:
                self._pop_to(depth)
                return
            if name in scope:
                return

    def _close(self, name: str, written: str) -> None:
        if self._pre and name != "pre":
            if self._parts and not self._parts[-1].endswith("\n"):
                self._parts.append("\n")
            return
        if self._parts:
            self._flush()
        if self._flattened.get(name):
            self._flattened[name] -= 1
            return
        if self._open[-1].name == name and len(self._open) > 1:
            self._pop()
            return
        for depth in range(len(self._open) - 1, 0, -1):
            found = self._open[depth].name
            if found == name:
                self._pop_to(depth)
                return
            if found in ("td", "th", "table") and name not in (
                "table",
                "tr",
                "tbody",
                "thead",
                "tfoot",
                "body",
                "html",
            ):
                return

    def _alt(self, written: str) -> None:
        """Alt text in running text, and formulas everywhere: "a photo of ..." alone is a caption, no text."""
        alt = attributes(written).get("alt", "").strip() if "alt" in written else ""
        if alt and (any(part.strip() for part in self._parts) or image_formula(written, alt)):
            self._parts.append(f" {alt} ")

    def _pop_to(self, depth: int) -> None:
        while len(self._open) > depth:
            self._pop()

    def _pop(self) -> None:
        element = self._open.pop()
        element.last = len(self.blocks)
        depth = len(self._open)
        if self._never > depth:
            self._never = 0
        if self._pre > depth:
            self._pre = 0

    def _flush(self) -> None:
        parts = self._parts
        if parts and not self._never:
            text = "".join(parts)
            text = _shaped(text) if self._pre else _flowing(text)
            if self._open[-1].name in HEADINGS:
                text = _PERMALINK.sub("", text)
            if text:
                self.blocks.append(Block(text, self._open[-1], min(self._linked, len(text))))
        parts.clear()
        self._linked = 0


def _flowing(text: str) -> str:
    """Text whose blanks mean nothing; line breaks stand where the page has <br>."""
    if "&" in text:
        text = unescape(text)
    if _BREAK_MARK in text:
        return "\n".join(" ".join(line.split()) for line in text.split(_BREAK_MARK)).strip()
    return " ".join(text.split())


def _shaped(text: str) -> str:
    """Preformatted text: as it is, without blank lines around."""
    lines = [line.rstrip() for line in unescape(text).replace("\xa0", " ").expandtabs(8).split("\n")]
    return "\n".join(lines).strip("\n")


def build(tags: Iterable[Tag]) -> Builder:
    builder = Builder()
    builder.read(tags)
    return builder
