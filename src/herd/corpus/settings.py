"""Settings of reading and curation. Thresholds that a paper published stand in data/ with their source."""

from __future__ import annotations

from dataclasses import dataclass

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
    piece_characters: int = MEGABYTE  # a larger text file becomes several documents, cut at line ends
    max_characters: int = 0  # of the whole folder, spread evenly over its files; 0: everything
    text_column: str = "text"  # of Parquet files and JSON lines


@dataclass(frozen=True)
class CurateSettings:
    """Which steps run, in which order, and their thresholds. Fractions are between 0 and 1."""

    steps: tuple[str, ...] = STEPS
    trusted_sources: tuple[str, ...] = (
        "paddock",
    )  # repeat themselves on purpose: repeated_lines, repetition skip them

    min_words: int = 3
    max_words: int = 2_000_000

    language_confidence: float = 0.5  # of the other language, before a document is dropped for it
    language_doubt: float = 0.2  # of the declared language; above it the document gets the benefit

    pii: str = "auto"  # "auto" drops pages that are mostly PII and masks the rest; "mask"; "drop"
    pii_page_fraction: float = 0.10  # of the characters, with at least pii_page_hits of them
    pii_page_hits: int = 3

    near_duplicate_threshold: float = 0.75  # Jaccard similarity of word shingles; FineWeb's, as the next two
    near_duplicate_shingle: int = 5  # words in a shingle
    near_duplicate_permutations: int = 112  # Llama 3's were never published

    line_repeats: int = 6  # a line in more documents than this is removed (Llama 3, section 3.1.1)

    repetition_min_words: int = 50  # Rae et al. 2021 see no document below 50 words; shorter ones pass
    examples: int = 10  # of each reason, kept in the report
