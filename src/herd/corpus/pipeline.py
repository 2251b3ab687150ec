"""Curation: documents through the steps, every removal kept with its reason.

Into a folder: kept/ and removed/ (each document with step, reason, detail), a file for each unit of reading;
unreadable/, report.json. A step that removed nothing or everything says so loudly: both are the signs of a step that
does not work.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from herd.corpus.duplicates import ExactDuplicates, UrlDuplicates
from herd.corpus.engine.job import Held, Job
from herd.corpus.engine.run import run
from herd.corpus.heuristics import Boilerplate, Length
from herd.corpus.language import Language
from herd.corpus.lines import RepeatedLines
from herd.corpus.minhash import NearDuplicates
from herd.corpus.pii import Pii
from herd.corpus.records import Document, Unreadable
from herd.corpus.repetition import Repetition
from herd.corpus.report import CurationReport
from herd.corpus.settings import CurateSettings
from herd.corpus.step import CorpusStep, ManyStep, Step
from herd.errors import ArtifactError, FormatError
from herd.files import read_jsonl
from herd.progress import Progress, Silent


def build_steps(settings: CurateSettings) -> list[Step | ManyStep | CorpusStep]:
    """The steps named in the settings, in their order."""
    s, trusted = settings, settings.trusted_sources
    makers: Mapping[str, Any] = {
        "url_duplicates": UrlDuplicates,
        "length": lambda: Length(s.min_words, s.max_words),
        "language": lambda: Language(s.language_confidence, s.language_doubt),
        "exact_duplicates": ExactDuplicates,
        "pii": lambda: Pii(s.pii, s.pii_page_fraction, s.pii_page_hits),
        "near_duplicates": lambda: NearDuplicates(
            s.near_duplicate_threshold,
            s.near_duplicate_shingle,
            s.near_duplicate_permutations,
            trusted=trusted,
            trusted_threshold=s.trusted_near_duplicate_threshold,
        ),
        "repeated_lines": lambda: RepeatedLines(s.line_repeats, trusted),
        "boilerplate": lambda: Boilerplate(trusted),
        "repetition": lambda: Repetition(s.repetition_min_words, trusted),
    }
    return [makers[name]() for name in s.steps]


def curate(
    documents: Iterable[Document | Unreadable],
    settings: CurateSettings,
    out: Path,
    progress: Progress | None = None,
    extra_steps: Sequence[Step | ManyStep | CorpusStep] = (),
) -> CurationReport:
    """Curate documents that this process has at hand, in this process, into the folder `out`; see engine/run.py.

    The same documents in the same order give the same bytes. Raises InputError when no document comes, NoEffectError
    when a step removes every document that reaches it.
    """
    work = out / "work"
    shutil.rmtree(work, ignore_errors=True)  # of another process: documents in memory cannot be gone on with
    job = Job(Held(list(documents)), settings, out, work, tuple(extra_steps))
    try:
        return run(job, progress or Silent())
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_kept(folder: Path) -> Iterator[Document]:
    """The documents that a curation kept, from its folder; ArtifactError when there is no curation in it."""
    paths = sorted((folder / "kept").glob("*.jsonl.gz"))
    if not paths:
        raise ArtifactError("there are no curated documents here", where=str(folder / "kept"), mend="curate them anew")
    for path in paths:
        for row in read_jsonl(path):
            try:
                yield Document.from_row(row)
            except (KeyError, TypeError) as error:
                raise FormatError(f"a record of a document lacks {error}", where=str(path)) from error
