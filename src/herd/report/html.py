"""HTML and SVG as values: a string that is not `Html` is escaped wherever it is put, so no caller can forget to.

Everything a report shows may be hostile (documents, replies, names). There is one way into the page: `tag`.
Not covered: parsing, templates, rich text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

VOID = frozenset({"br", "col", "hr", "input", "link", "meta"})
_REPLACEMENTS = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
# Control characters are not allowed in HTML, and a lone surrogate cannot be written as UTF-8.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_SPECIAL = re.compile("[&<>\"']")


class Html(str):
    """Markup that is ready to be written; made by `tag`, `join` and `escape` only."""

    __slots__ = ()


Child = Html | str | int | None
Attribute = str | int | float | bool | None


def escape(text: str) -> Html:
    """`text` as it will be shown, safe as element content and inside a quoted attribute."""
    clean = _UNWRITABLE.sub("\ufffd", text)
    return Html(_SPECIAL.sub(lambda found: _REPLACEMENTS[found.group()], clean))


def join(children: Iterable[Child], between: str = "") -> Html:
    """Children one after another; None is left out, plain strings are escaped."""
    return Html(escape(between).join(_ready(child) for child in children if child is not None))


def tag(name: str, /, *children: Child | Iterable[Child], **attributes: Attribute) -> Html:
    """An element. `class_` is written `class`, `aria_label` as `aria-label`; None and False leave an attribute out."""
    opened = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    if name in VOID:
        assert not children, f"<{name}> holds nothing"
        return Html(opened)
    inside = "".join(
        _ready(child) if isinstance(child, (str, int)) else join(child) for child in children if child is not None
    )
    return Html(f"{opened}{inside}</{name}>")


def _ready(child: Html | str | int) -> str:
    return child if isinstance(child, Html) else escape(str(child))


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name), f"not an attribute name: {name!r}"
    if value is True:
        return f" {name}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'
