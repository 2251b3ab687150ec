"""A user's folder read from one end to the other in this process, with its progress and, if asked, within a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from herd.corpus.read import MEND, Part, parts_of, read_part
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings
from herd.errors import InputError
from herd.progress import Progress, Silent


def read_documents(
    path: Path | str, progress: Progress | None = None, *, settings: ReadSettings | None = None
) -> Iterator[Document | Unreadable]:
    """Every document under `path` (a file, a folder, searched deeply, or an address), in the order of the file names.

    What is no document comes as `Unreadable`, with the place and the reason. A document's id is the file's name
    inside the folder (with the line or row), unless the record has its own. Its source is the record's, or the name
    of a file of records without its endings; loose pages (text, Markdown, HTML) share one, named after their folder.
    With `settings.max_characters` the smallest files come first, so that what they leave of their even share goes to
    the larger ones; what was left out is an `Unreadable` "over_cap".

    Raises InputError at once when there is no such path or no file in it, and at the end when not one document came.
    """
    settings = settings or ReadSettings()
    parts, aside = parts_of(path, settings)
    return _read(str(path), parts, aside, progress or Silent(), settings)


def _read(
    root: str, parts: list[Part], aside: list[Unreadable], progress: Progress, settings: ReadSettings
) -> Iterator[Document | Unreadable]:
    yield from aside
    if settings.max_characters:
        parts = sorted(parts, key=lambda part: (part.size, part.path))
    total, done, left = sum(part.size for part in parts), 0, settings.max_characters
    reasons = Counter(item.reason for item in aside)
    documents = 0
    for index, part in enumerate(parts):
        share = left // (len(parts) - index) if settings.max_characters else 0
        for item in _within(part, share, settings):
            if isinstance(item, Document):
                documents += 1
                left -= len(item.text)
            else:
                reasons[item.reason] += 1
            yield item
        done += part.size
        progress.update(done, total, "bytes read", {"documents": documents, "unreadable": reasons.total()})
    if reasons:
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        progress.note(f"{root}: {documents:,} documents read; left aside: {told}")
    if not documents:
        found = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        raise InputError(f"not one document could be read ({found})", where=root, mend=MEND)


def _within(part: Part, share: int, settings: ReadSettings) -> Iterator[Document | Unreadable]:
    """The documents of one part, up to `share` characters (0: all)."""
    taken = 0
    for item in read_part(part, settings):
        if share and isinstance(item, Document):
            if taken >= share:
                detail = f"{taken:,} characters were read, the rest was left out by max_characters"
                yield Unreadable(part.name, f"from {item.id}", "over_cap", detail)
                return
            taken += len(item.text)
        yield item
