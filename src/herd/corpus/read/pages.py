"""A record of a web archive as a document: which pages we take, and why we leave the others aside."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from herd.corpus.extract import extract
from herd.corpus.read.http import Answer, BadAnswer, parse_answer
from herd.corpus.read.unit import Part
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings

_HTML = ("text/html", "application/xhtml+xml")
_SCHEMES = ("http://", "https://", "ftp://", "gopher://")  # not metadata://gnu.org/... of wget, dns:, urn:
_TEXT = ("text/plain", "text/markdown")


@dataclass(frozen=True, slots=True)
class Record:
    """One record: `place` for a verdict, `mark` for an id, the fields by lower-case name, the content."""

    kind: str
    place: str
    mark: str
    fields: Mapping[str, str]
    data: bytes = field(repr=False)


def document_of(record: Record, part: Part, settings: ReadSettings) -> Document | Unreadable:
    """The page as a document; its id is the record's own, or the place in the archive."""

    def none(reason: str, detail: str) -> Unreadable:
        return Unreadable(part.name, record.place, reason, detail)

    url = record.fields.get("warc-target-uri", "").strip("<>")
    try:
        page = _answer(record, settings)
    except BadAnswer as error:
        return none("bad_http", f"{url}: {error}")
    if not 200 <= page.status < 300:
        return none("http_status", f"{page.status} {url}")
    if "warc-truncated" in record.fields:  # Llama 3, section 3.1.1, reads non-truncated documents
        return none("truncated_page", f"cut by the crawler ({record.fields['warc-truncated']}): {url}")
    if page.mime not in _HTML + _TEXT or not url.lower().startswith(_SCHEMES):
        return none("not_a_page", f"{page.mime or 'no type'}: {url}")
    title, text = _text(page, url)
    if not text.strip():
        return none("no_text", f"no text is left of the page: {url}")
    return Document(_id(record, part), text, "", part.source, url, _meta(record, page, title))


def _answer(record: Record, settings: ReadSettings) -> Answer:
    kind = record.fields.get("content-type", "")
    if kind.startswith("application/http") or (record.kind == "response" and record.data.startswith(b"HTTP/")):
        return parse_answer(record.data, settings.max_record_bytes)
    mime, _, rest = kind.partition(";")
    charset = "utf-8" if record.kind == "conversion" else rest.partition("charset=")[2].strip("\"' ")
    return Answer(200, mime.strip().lower(), charset, record.data)


def _text(page: Answer, url: str) -> tuple[str, str]:
    """(title, text). The server's charset goes before the page's own, as in a browser."""
    decoded: str | bytes = page.body
    if page.charset:
        try:
            decoded = page.body.decode(codecs.lookup(page.charset).name, "replace")
        except (LookupError, UnicodeError):  # no such charset
            decoded = page.body
    if page.mime in _HTML:
        found = extract(decoded, url)
        return found.title, found.text
    return "", decoded if isinstance(decoded, str) else decoded.decode("utf-8", "replace")


def _id(record: Record, part: Part) -> str:
    own = record.fields.get("warc-record-id", "").strip("<>")
    return own.removeprefix("urn:uuid:") or f"{part.name}@{record.mark}"


def _meta(record: Record, page: Answer, title: str) -> dict[str, Any]:
    meta = {
        "date": record.fields.get("warc-date", ""),
        "mime": page.mime,
        "offset": record.mark,
        "title": title,
        "languages": record.fields.get("warc-identified-content-language", ""),
    }
    return {name: value for name, value in meta.items() if value}
