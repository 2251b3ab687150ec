"""Stage `shards`: the mix by source, cut into training and validation, as token files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from herd.corpus.documents import Document
from herd.corpus.mix import mix
from herd.corpus.tokenize import tokenize
from herd.errors import SettingError
from herd.files import write_json
from herd.recipe import MixSettings
from herd.road.corpus import read_kept
from herd.stages import Context
from herd.text import Tokenizer


def run(ctx: Context) -> Mapping[str, Any]:
    settings: MixSettings = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    by_source: dict[str, list[Document]] = {}
    for page in read_kept(ctx.inputs["corpus"]):
        by_source.setdefault(page.source, []).extend(pieces(page, settings.piece_characters))
    pages = [page for group in by_source.values() for page in group]
    sizes = dict(zip((p.id for p in pages), map(len, tokenizer.encode_batch([p.text for p in pages])), strict=True))
    weights = shares(settings, by_source)
    mixed = mix(by_source, weights, settings.tokens, lambda page: sizes[page.id] + 2)
    write_json(ctx.out / "mix.json", [asdict(share) for share in mixed.shares])
    for share in mixed.shares:
        if share.epochs > 1.5:
            ctx.progress.note(f"{share.source} is read {share.epochs:.1f} times: it is small for its share")
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


def shares(settings: MixSettings, sources: Iterable[str]) -> dict[str, float]:
    """Each source's share, sum 1: the recipe's weights; `other` is divided among sources that it does not name."""
    present = list(sources)
    others = [source for source in present if source not in settings.weights]
    weights = {s: settings.weights.get(s, settings.other / max(1, len(others))) for s in present}
    total = sum(weights.values())
    if total <= 0:
        raise SettingError("no source of the corpus has a weight", where="mix.weights")
    return {source: weight / total for source, weight in weights.items()}
