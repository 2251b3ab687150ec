"""Stage `tokenizer`: a byte-level BPE learnt on the corpus and the seed dialogues, or the released vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from herd.corpus.pipeline import read_kept
from herd.road.mixing import shares
from herd.road.settings import Vocabulary
from herd.road.world import read_tasks
from herd.stages import Context
from herd.text import Tokenizer


def run(ctx: Context) -> Mapping[str, Any]:
    settings: Vocabulary = ctx.settings
    if settings.tokenizer.released:
        tokenizer = Tokenizer.load(settings.tokenizer.released)
    else:
        tokenizer = Tokenizer.train(_texts(ctx, settings), settings.tokenizer.vocab_size)
    tokenizer.save(ctx.out)
    sample = [page.text for page, _ in zip(read_kept(ctx.inputs["corpus"]), range(500), strict=False)]
    tokens = sum(map(len, tokenizer.encode_batch(sample)))
    characters = sum(map(len, sample))
    return {"vocab_size": tokenizer.vocab_size, "characters_per_token": round(characters / max(1, tokens), 3)}


def _texts(ctx: Context, settings: Vocabulary) -> Iterator[str]:
    """Each source's share of the sample, as of the mix that models are trained on; then the seed dialogues."""
    by_source: dict[str, list[str]] = {}
    for page in read_kept(ctx.inputs["corpus"]):
        by_source.setdefault(page.source, []).append(page.text)
    weights = shares(settings.mix, by_source)
    for source, texts in by_source.items():
        room = settings.tokenizer.sample_characters * weights[source]
        for text in texts:
            if room <= 0:
                break
            yield text[: max(1, int(room))]
            room -= len(text)
    if "world" in ctx.inputs:
        yield from dialogue_texts(ctx.inputs["world"])


def dialogue_texts(world: Path) -> Iterator[str]:
    """The seed dialogues as plain text: what the chat format will make the models read."""
    for task in read_tasks(world, "seed"):
        for message in task.dialogue():
            yield message.content or message.tool_calls[0].json()
