"""What a page says of itself: title, date of publication or change, canonical address, language.

Sources: the HTML standard (lang, link rel=canonical, time), Open Graph (og:, article:), schema.org (JSON-LD, itemprop),
Dublin Core, the Google Scholar names (citation_*).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import unescape
from urllib.parse import urljoin, urlsplit

from herd.corpus.extract.scan import Tag, attributes

_TELLING = frozenset(("html", "HTML", "title", "TITLE", "meta", "META", "link", "LINK"))
_JSON_DATE = {
    "published": re.compile(r"\"datePublished\"\s*:\s*\"([^\"]{8,40})\""),
    "modified": re.compile(r"\"dateModified\"\s*:\s*\"([^\"]{8,40})\""),
}
_NAMES = {
    "published": (
        "article:published_time", "og:published_time", "datepublished", "dc.date.issued", "dcterms.created", "dc.date",
        "dcterms.date", "citation_publication_date", "citation_date", "pubdate", "publishdate", "publish-date",
        "parsely-pub-date", "sailthru.date", "date",
    ),
    "modified": (
        "article:modified_time", "og:updated_time", "datemodified", "dcterms.modified", "dc.date.modified", "lastmod",
        "last-modified",
    ),
    "title": ("og:title", "twitter:title", "citation_title", "dc.title", "dcterms.title"),
}  # fmt: skip
_DATE = re.compile(r"\s*((?:19|20)\d\d)[-/.]?(0[1-9]|1[0-2])[-/.]?(0[1-9]|[12]\d|3[01])(?!\d)")
_SITE = re.compile(r"\s+[|\-–—·»:]+\s+")
_LANGUAGE = re.compile(r"[a-zA-Z]{2,3}(?:[-_][a-zA-Z0-9]{1,8})*\Z")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Dates are ISO 8601 days; each is "" where the page does not tell."""

    title: str = ""
    published: str = ""
    modified: str = ""
    canonical: str = ""
    language: str = ""


def metadata(tags: Iterable[Tag], html: str, url: str = "") -> Metadata:
    """What the tags of the page and its JSON-LD say; `url` completes a relative address."""
    told: dict[str, str] = {}
    canonical = language = title = ""
    for _, closing, name, written, text in tags:
        if name not in _TELLING or closing:
            continue
        name, found = name.lower(), attributes(written)
        if name == "title":
            title = title or text
        elif name == "html":
            language = language or found.get("lang", "") or found.get("xml:lang", "")
        elif name == "link":
            canonical = canonical or (found.get("href", "") if "canonical" in found.get("rel", "").lower() else "")
        else:
            property = found.get("property") or found.get("name") or found.get("itemprop") or ""
            told.setdefault(property.lower(), found.get("content", ""))
    return Metadata(
        " ".join(unescape(_first(told, "title") or title).split()),
        _day(_first(told, "published")) or _json_day(html, "published"),
        _day(_first(told, "modified")) or _json_day(html, "modified"),
        _address(unescape(canonical or told.get("og:url", "")), url),
        language.strip() if _LANGUAGE.match(language.strip()) else "",
    )


def without_site(title: str, heading: str) -> str:
    """The heading of the page where its title begins or ends with it ("Heading | Site"), or the title."""
    parts = [" ".join(part.split()).casefold() for part in _SITE.split(title)]
    same = " ".join(heading.split())
    return same if same and (same.casefold() in parts or title.casefold().startswith(same.casefold())) else title


def _first(told: dict[str, str], what: str) -> str:
    return next((told[name] for name in _NAMES[what] if told.get(name)), "")


def _json_day(head: str, what: str) -> str:
    found = _JSON_DATE[what].search(head)
    return _day(found[1]) if found else ""


def _day(text: str) -> str:
    found = _DATE.match(text)
    return "-".join(found.groups()) if found else ""


def _address(canonical: str, url: str) -> str:
    """The address in full; "" unless it is one of the web."""
    try:
        whole = urljoin(url, canonical.strip()) if canonical.strip() else ""
        return whole if urlsplit(whole).scheme in ("http", "https") and len(whole) <= 2000 else ""
    except ValueError:  # a bracket that is no IPv6 address
        return ""
