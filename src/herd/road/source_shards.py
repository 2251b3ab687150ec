"""Stage `source-shards`: token files of each source by itself, for models whose mix changes on the way.

sources.json        {source: folder}
000/ 001/ ...       each source's documents once, without those held out (which the stage `shards` has)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from herd.corpus.documents import Document
from herd.corpus.pipeline import read_kept
from herd.corpus.tokenize import tokenize
from herd.files import write_json
from herd.recipe import MixSettings
from herd.road.shards import pieces
from herd.stages import Context
from herd.text import Tokenizer


def run(ctx: Context) -> Mapping[str, Any]:
    settings: MixSettings = ctx.settings
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"])
    by_source: dict[str, list[Document]] = {}
    for page in read_kept(ctx.inputs["corpus"]):
        by_source.setdefault(page.source, []).extend(pieces(page, settings.piece_characters))
    folders, tokens = {}, {}
    for number, source in enumerate(sorted(by_source)):
        aside = ctx.scratch / f"{number:03d}"
        splits = tokenize(by_source[source], tokenizer, aside, ctx.progress, validation_fraction=settings.validation)
        if splits.train.n_tokens:
            folders[source], tokens[source] = f"{number:03d}", splits.train.n_tokens
            (aside / "train").rename(ctx.out / f"{number:03d}")
    write_json(ctx.out / "sources.json", folders)
    return {f"{source} tokens": count for source, count in tokens.items()}
