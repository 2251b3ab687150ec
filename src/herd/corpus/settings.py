"""Settings of reading and curation. Thresholds that a paper published stand in data/ with their source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from herd.config import need
from herd.errors import SettingError

MEGABYTE = 1_000_000

STEPS = (
    "url_duplicates",  # Llama 3, section 3.1.1: the order of the published pipeline, cheap steps first
    "length",
    "language",
    "exact_duplicates",
    "pii",
    "near_duplicates",
    "boilerplate",  # before the lines go: it judges the shape of whole pages
    "repeated_lines",
    "repetition",
)


@dataclass(frozen=True)
class ReadSettings:
    """Limits of reading a user's folder. Whatever a limit leaves out is reported."""

    max_line_bytes: int = 16 * MEGABYTE  # a longer JSON line or text line is a verdict, and is not held in memory
    max_record_bytes: int = 16 * MEGABYTE  # the same of a record of a web archive, packed and unpacked
    unit_bytes: int = 256 * MEGABYTE  # what is read, and done again after a kill, as one; larger files are cut
    piece_characters: int = MEGABYTE  # a larger text file becomes several documents, cut at line ends
    max_characters: int = 0  # of the whole folder, spread evenly over its files; 0: everything
    text_column: str = "text"  # of Parquet files and JSON lines

    def __post_init__(self) -> None:
        need(self, "max_line_bytes", 1 <= self.max_line_bytes <= 2**40, "between 1 and 2^40")
        need(self, "max_record_bytes", 1 <= self.max_record_bytes <= 2**40, "between 1 and 2^40")
        need(self, "unit_bytes", self.unit_bytes >= 1, "at least 1")
        need(self, "piece_characters", self.piece_characters >= 1, "at least 1")
        need(self, "max_characters", self.max_characters >= 0, "0 (everything) or more")
        need(self, "text_column", bool(self.text_column), "the name of a column")


@dataclass(frozen=True)
class CurateSettings:
    """Which steps run, in which order, and their thresholds. Fractions are between 0 and 1."""

    steps: tuple[str, ...] = STEPS
    trusted_sources: tuple[str, ...] = (
        "paddock",
    )  # repeat themselves on purpose: repeated_lines and repetition skip them, near_duplicates asks more of them, and
    # boilerplate does not ask them for sentences

    min_words: int = 3
    max_words: int = 2_000_000

    language_confidence: float = 0.5  # of the other language, before a document is dropped for it
    language_doubt: float = 0.2  # of the declared language; above it the document gets the benefit

    pii: Literal["auto", "mask", "drop"] = (
        "auto"  # "auto" drops pages that are mostly PII and masks the rest; "mask"; "drop"
    )
    pii_page_fraction: float = 0.10  # of the characters, with at least pii_page_hits of them
    pii_page_hits: int = 3

    # Jaccard similarity of word shingles; chosen here, FineWeb has 0.75. There a page of one screen passes when it is
    # copied with a few changed words into another site's frame (docs/log.md).
    near_duplicate_threshold: float = 0.70
    trusted_near_duplicate_threshold: float = 0.75  # between two pages of trusted sources
    near_duplicate_shingle: int = 5  # words in a shingle; FineWeb's, as the next
    near_duplicate_permutations: int = 112  # Llama 3's were never published

    line_repeats: int = 6  # a line in more documents than this is removed (Llama 3, section 3.1.1)

    repetition_min_words: int = 50  # Rae et al. 2021 see no document below 50 words; shorter ones pass
    examples: int = 10  # of each reason, kept in the report

    def __post_init__(self) -> None:
        for step in self.steps:
            if step not in STEPS:
                raise SettingError(
                    f"there is no curation step '{step}'", where="curate.steps", mend="one of: " + ", ".join(STEPS)
                )
        for name in ("language_confidence", "language_doubt", "pii_page_fraction"):
            need(self, name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        for name in ("min_words", "repetition_min_words", "examples"):
            need(self, name, getattr(self, name) >= 0, "0 or more")
        for name in ("pii_page_hits", "near_duplicate_shingle", "line_repeats"):
            need(self, name, getattr(self, name) >= 1, "at least 1")
        need(self, "max_words", self.max_words >= self.min_words, f"at least min_words ({self.min_words})")
        for name in ("near_duplicate_threshold", "trusted_near_duplicate_threshold"):
            need(self, name, 0 < getattr(self, name) <= 1, "above 0, at most 1")
        most = 4096  # each document is held as so many numbers
        need(self, "near_duplicate_permutations", 1 <= self.near_duplicate_permutations <= most, f"1 to {most}")
