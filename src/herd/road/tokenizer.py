"""Stage `tokenizer`: a byte-level BPE learnt on the corpus and the seed dialogues, or the released vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from herd.recipe import TokenizerSettings
from herd.road.corpus import read_kept
from herd.road.world import read_tasks
from herd.stages import Context
from herd.text import Tokenizer


def run(ctx: Context) -> Mapping[str, Any]:
    settings: TokenizerSettings = ctx.settings
    if settings.released:
        tokenizer = Tokenizer.load(settings.released)
    else:
        tokenizer = Tokenizer.train(_texts(ctx, settings.sample_characters), settings.vocab_size)
    tokenizer.save(ctx.out)
    sample = [page.text for page, _ in zip(read_kept(ctx.inputs["corpus"]), range(500), strict=False)]
    tokens = sum(map(len, tokenizer.encode_batch(sample)))
    characters = sum(map(len, sample))
    return {"vocab_size": tokenizer.vocab_size, "characters_per_token": round(characters / max(1, tokens), 3)}


def _texts(ctx: Context, limit: int) -> Iterator[str]:
    """Sources in turn until `limit` characters, so that a large one does not crowd out the others; then dialogues."""
    by_source: dict[str, list[str]] = {}
    for page in read_kept(ctx.inputs["corpus"]):
        by_source.setdefault(page.source, []).append(page.text)
    for texts in by_source.values():
        spent = 0
        for text in texts:
            if spent > limit / len(by_source):
                break
            spent += len(text)
            yield text
    if "world" in ctx.inputs:
        yield from dialogue_texts(ctx.inputs["world"])


def dialogue_texts(world: Path) -> Iterator[str]:
    """The seed dialogues as plain text: what the chat format will make the models read."""
    for task in read_tasks(world, "seed"):
        for message in task.dialogue():
            yield message.content or message.tool_calls[0].json()
