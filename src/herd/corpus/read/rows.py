"""Records of a user's files (JSON lines, tables) as documents: which fields we know, and what becomes of the others."""

from __future__ import annotations

from typing import Any

from herd.corpus.extract import extract
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings

_KNOWN = ("id", "text", "lang", "language", "source", "url", "html", "meta")


def from_row(
    row: dict[str, Any], name: str, place: str, default_id: str, source: str, settings: ReadSettings
) -> Document | Unreadable:
    """A document out of a record's fields; fields that we do not know go into `meta`."""
    text, meta = row.get(settings.text_column), {k: v for k, v in row.items() if k not in _KNOWN}
    meta.pop(settings.text_column, None)
    if text is None and isinstance(row.get("html"), str):
        page = extract(row["html"], _word(row, "url"))
        text = page.text
        meta = {"title": page.title} if page.title else {}
    if not isinstance(text, str) or not text.strip():
        has = ", ".join(sorted(map(str, row))[:8])
        return Unreadable(name, place, "no_text", f"no text in field '{settings.text_column}'; it has: {has}")
    if isinstance(row.get("meta"), dict):
        meta = {**row["meta"], **meta}
    given = row.get("id")
    identity = str(given) if isinstance(given, str | int) and str(given) else default_id
    return Document(identity, text, _lang(row), _word(row, "source") or source, _word(row, "url"), meta)


# ISO 639-3 and 639-2 codes of the eight languages, as FineWeb-2 and others write them.
_THREE_LETTERS = {
    "eng": "en",
    "deu": "de",
    "ger": "de",
    "fra": "fr",
    "fre": "fr",
    "ita": "it",
    "por": "pt",
    "hin": "hi",
    "spa": "es",
    "tha": "th",
}


def _lang(row: dict[str, Any]) -> str:
    """The language code without its region: en-US and en_GB are en, deu is de."""
    code = (_word(row, "lang") or _word(row, "language")).lower().replace("_", "-").split("-")[0]
    return _THREE_LETTERS.get(code, code)


def _word(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""
