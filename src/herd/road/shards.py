"""Stage `shards`: the mix by source, cut into training and validation, as token files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from herd.corpus.documents import Document
from herd.corpus.mix import mix
from herd.corpus.pipeline import read_kept
from herd.corpus.tokenize import tokenize
from herd.files import write_json
from herd.recipe import MixSettings
from herd.road.mixing import bounded, notes
from herd.stages import Context
from herd.text import Tokenizer


def run(ctx: Context) -> Mapping[str, Any]:
    settings: MixSettings = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    by_source: dict[str, list[Document]] = {}
    for page in read_kept(ctx.inputs["corpus"]):
        by_source.setdefault(page.source, []).extend(pieces(page, settings.piece_characters))
    pages = [page for group in by_source.values() for page in group]
    lengths = map(len, tokenizer.encode_batch([page.text for page in pages]))
    sizes = {page.id: length + 2 for page, length in zip(pages, lengths, strict=True)}  # with its two marks
    available = {source: sum(sizes[page.id] for page in group) for source, group in by_source.items()}
    mixed = mix(by_source, bounded(settings, available), settings.tokens, lambda page: sizes[page.id])
    write_json(ctx.out / "mix.json", [asdict(share) for share in mixed.shares])
    for note in notes(settings, mixed.shares):
        ctx.progress.note(note)
    splits = tokenize(mixed.documents, tokenizer, ctx.out, ctx.progress, validation_fraction=settings.validation)
    return {"train_tokens": splits.train.n_tokens, "validation_tokens": splits.validation.n_tokens}


def pieces(page: Document, characters: int) -> list[Document]:
    """The document, or parts of it of about `characters`, cut at line ends, with ids ID#0, ID#1, ...

    Where a run reads a hundred thousand tokens, one long file would be a whole source, and its validation.
    """
    if not characters or len(page.text) <= characters:
        return [page]
    parts: list[list[str]] = [[]]
    size = 0
    for line in page.text.splitlines(keepends=True):
        if size and size + len(line) > characters:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line)
    return [replace(page, id=f"{page.id}#{n}", text="".join(lines)) for n, lines in enumerate(parts)]
