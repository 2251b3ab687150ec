"""The two things that a reader yields: a document, or a record of what could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LANGUAGES = ("en", "de", "fr", "it", "pt", "hi", "es", "th")
CODE = "code"
MULTIPLE = "mul"  # ISO 639-2: a page in several languages, such as a dictionary; not identified


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from.

    `lang` is one of the eight codes, "code", "mul" for several, "" when nobody declared it, or another code that the
    source declared.
    `source` names the collection (what mixing weights speak of); `id` is unique in a corpus.
    """

    id: str
    text: str
    lang: str
    source: str
    url: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The document as a JSON line; empty url and meta are left out."""
        row: dict[str, Any] = {"id": self.id, "text": self.text, "lang": self.lang, "source": self.source}
        if self.url:
            row["url"] = self.url
        if self.meta:
            row["meta"] = dict(self.meta)
        return row

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> Document:
        return Document(row["id"], row["text"], row["lang"], row["source"], row.get("url", ""), row.get("meta", {}))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something in the user's files that is no document: `file`, the place in it, and why.

    `reason` is one of: unknown_format, hidden_file, no_file, binary, not_utf8, line_too_long, bad_json, no_text,
    bad_gzip, bad_zstd, truncated, bad_parquet, bad_arrow, no_permission, unreadable_disk, dataset_card, over_cap (left
    out by a setting, no fault); of web archives bad_record, record_too_long, bad_http, http_status, truncated_page,
    not_a_page.
    """

    file: str
    place: str
    reason: str
    detail: str = ""

    def row(self) -> dict[str, str]:
        return {"file": self.file, "place": self.place, "reason": self.reason, "detail": self.detail}
