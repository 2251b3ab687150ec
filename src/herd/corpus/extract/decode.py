"""Bytes of a page -> text, as browsers do it: byte order mark, then what the page declares, then what it looks like.

HTML standard, section 13.2.3 (a server's charset goes before all but the mark: the caller has it). Names are mapped
as the Encoding standard says: "iso-8859-1" means windows-1252, and a page cannot declare UTF-16 in ASCII.
"""

from __future__ import annotations

import codecs
import re

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_DECLARED = re.compile(rb"""<meta[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_XML_DECLARED = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{2,40})""", re.IGNORECASE)
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
_PRESCAN = 1024  # bytes in which the standard looks for a declaration; real pages declare later, browsers read on
_SAMPLE = 1 << 16


def decode(page: bytes) -> str:
    """The page as text; what is not valid in its encoding becomes U+FFFD."""
    for mark, encoding in _MARKS:
        if page.startswith(mark):
            return page[len(mark) :].decode(encoding, "replace")
    declared = _declared(page)
    if declared:
        return page.decode(declared, "replace")
    try:
        return page.decode("utf-8")
    except UnicodeDecodeError:
        return page.decode(_known(detect_encoding(page[:_SAMPLE])) or "windows-1252", "replace")


def _declared(page: bytes) -> str:
    """The encoding that the page declares, or ""."""
    head = _COMMENT.sub(b"", page[: 8 * _PRESCAN])
    found = _XML_DECLARED.search(head) or _DECLARED.search(head)
    encoding = _known(map_encoding_to_html5(found[1].decode("ascii"), fallback_utf8=False)) if found else ""
    return "utf-8" if encoding.startswith("utf-16") else encoding


def _known(encoding: str | None) -> str:
    try:
        return codecs.lookup(encoding).name if encoding else ""
    except LookupError:
        return ""
