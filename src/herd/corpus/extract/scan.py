"""HTML -> tags with the text behind each: one regular expression, in time linear in the page.

What a browser does with the same characters (HTML standard, section 13.2.5) is kept where text depends on it: quotes
hold a tag open only after "=", an unclosed comment or script swallows the rest, "<" before anything but a name is text.
The other rules of the standard's tree building do not change which text is where, so no tree is built here.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 4_000_000  # of a page; more is no page that a person wrote, and its text ends here

# (element without text, closing slash, name, attributes, text up to the next tag); a comment has no name
Tag = tuple[str, str, str, str, str]

_WRITTEN = r"[^>=]*+(?:=\s*+(?:\"[^\"]*+\"|'[^']*+')?+[^>=]*+)*+"  # attributes
_TAG = re.compile(
    r"<(?:!--(?:-?>|(?:[^-]++|-(?!-!?>))*+(?:--!?>)?)"  # comments; an unclosed one goes to the end
    r"|[!?][^>]*+>?"  # doctype, CDATA marks, processing instructions
    r"|((?i:script|style|svg|noscript|iframe|textarea|select|template|noframes|xmp|object|audio|video|canvas|datalist))"
    rf"(?=[\s/>]){_WRITTEN}>(?:[^<]++|<(?!/(?i:\1)[\s/>]))*+(?:</(?i:\1)[^>]*+>?)?"
    rf"|(/?)([a-zA-Z][^\s/>]*+)({_WRITTEN})>"
    r"|/(?![a-zA-Z])[^>]*+>?"
    r"|[a-zA-Z/].*)"  # a tag that never ends
    r"([^<]*+(?:<(?![a-zA-Z/!?])[^<]*+)*+)",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""([^\s=/>"']++)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>]++)))?+""")


def tags(html: str) -> list[Tag]:
    """The tags of a page; scripts, styles, drawings and form fields are one each, without what is in them."""
    return _TAG.findall("<html>" + html)


def attributes(text: str) -> dict[str, str]:
    """Names in lower case -> values as written (entities are not resolved); the first of a name counts."""
    found: dict[str, str] = {}
    for name, double, single, bare in _ATTRIBUTE.findall(text):
        found.setdefault(name.lower(), double or single or bare)
    return found
