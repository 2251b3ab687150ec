"""Documents, and reading a user's folder of them: what other rooms ask of reading (read/ has the readers)."""

from __future__ import annotations

from herd.corpus.read import accepted_formats
from herd.corpus.read.folder import read_documents
from herd.corpus.records import CODE, LANGUAGES, Document, Unreadable

__all__ = ["CODE", "LANGUAGES", "Document", "Unreadable", "accepted_formats", "read_documents"]
