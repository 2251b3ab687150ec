"""What a phase of pre-training reads: the mixed shards, each source by itself, or streams from elsewhere.

Phases read one endless sequence of each source, a phase from where the one before stopped (`position.json` beside its
model), so that nothing is read twice before everything was read once, whatever the length of rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from herd.corpus.blocks import BlockCache
from herd.corpus.streams import ShardSet, open_shards
from herd.errors import SettingError
from herd.files import read_json, write_json
from herd.recipe import MixSettings
from herd.road.mixing import shares
from herd.road.settings import Pretrain
from herd.stages import Context
from herd.text import Tokenizer
from herd.train.mixture import Mixture
from herd.train.sources import RowSource, Shuffled, TokenStream

CACHE_BYTES = 32 << 30  # of streamed tokens on this disk: some hundred windows of order.py; herd's choice
MIXED = "mixed"  # the one source of a phase that reads the stage `shards`


@dataclass(frozen=True)
class Position:
    """How much a model has read: tokens of all phases, and of each source's endless sequence."""

    tokens: int
    sources: Mapping[str, int]

    @staticmethod
    def of(ctx: Context) -> Position:
        """Where the phase before stopped."""
        path = ctx.inputs["before"] / "position.json" if "before" in ctx.inputs else None
        if path is None or not path.exists():
            return Position(0, {})
        facts = read_json(path)
        return Position(facts["tokens"], facts["sources"])

    def save(self, folder: Path) -> None:
        write_json(folder / "position.json", {"tokens": self.tokens, "sources": dict(self.sources)})


@dataclass(frozen=True)
class Reading:
    """The rows of a phase, and where it stops."""

    rows: RowSource
    before: Position
    names: Sequence[str]
    mixture: Mixture | None
    seq_len: int

    def position(self, rows: int) -> Position:
        """Where the phase is after so many rows."""
        taken = self.mixture.taken(rows).tolist() if self.mixture else [rows]
        counts = {
            name: self.before.sources.get(name, 0) + count * self.seq_len
            for name, count in zip(self.names, taken, strict=True)
        }
        return Position(self.before.tokens + rows * self.seq_len, counts)


def reading(ctx: Context, tokenizer: Tokenizer, ends: Sequence[int]) -> Reading:
    """The rows of the phase in `ctx`, which stops at one of the rows `ends`."""
    settings: Pretrain = ctx.settings
    stores, before, length = _stores(ctx, tokenizer), Position.of(ctx), settings.train.seq_len
    _same_as_before(ctx, stores)
    names, seed = list(stores), settings.train.seed
    streams = [TokenStream(stores[name], length, seed, origin=before.sources.get(name, 0)) for name in names]

    def shuffled(which: int, borders: Sequence[int]) -> RowSource:
        return Shuffled(streams[which], seed, borders=borders if settings.phases > 1 else ())

    if names == [MIXED]:
        return Reading(shuffled(0, ends), before, names, None, length)
    weights, changes = _weights(settings, names, before.tokens)
    counted = Mixture(streams, weights, changes=changes)
    borders = [counted.taken(end).tolist() for end in ends]
    sources = [shuffled(which, [one[which] for one in borders]) for which in range(len(names))]
    mixture = Mixture(sources, weights, changes=changes)
    return Reading(mixture, before, names, mixture, length)


def _stores(ctx: Context, tokenizer: Tokenizer) -> dict[str, ShardSet]:
    settings: Pretrain = ctx.settings
    if settings.streams:
        cache = BlockCache(cache_folder(), CACHE_BYTES)
        found = {name: open_shards(place, cache) for name, place in sorted(settings.streams.items())}
        for name, store in found.items():
            if store.tokenizer != tokenizer.fingerprint:
                raise SettingError(
                    f"the shards of '{name}' were made by tokenizer {store.tokenizer or 'unknown'},"
                    f" this run's is {tokenizer.fingerprint}",
                    where=f"streams.{name}: {settings.streams[name]}",
                    mend="name that tokenizer in tokenizer.released, or make the shards with this one",
                )
        return found
    if settings.changes:
        folder = ctx.inputs["sources"]
        return {name: open_shards(folder / place) for name, place in read_json(folder / "sources.json").items()}
    return {MIXED: open_shards(ctx.inputs["shards"] / "train")}


def cache_folder() -> Path:
    """Where blocks of streams are kept: HERD_CACHE, or a folder of the user's cache."""
    return Path(os.environ.get("HERD_CACHE") or Path.home() / ".cache" / "herd") / "shards"


def _same_as_before(ctx: Context, stores: Mapping[str, ShardSet]) -> None:
    """A run that was killed goes on with the tokens that it began with, or not at all."""
    path, now = ctx.scratch / "reading.json", {name: store.fingerprint for name, store in stores.items()}
    if path.exists() and read_json(path) != now:
        raise SettingError(
            "the shards are not those that this training began with",
            where=str(path),
            mend="put the old ones back, or remove this stage's folder under work/ to begin anew",
        )
    write_json(path, now)


def _weights(
    settings: Pretrain, names: Sequence[str], tokens: int
) -> tuple[list[float], list[tuple[int, list[float]]]]:
    """The mix that a phase begins with after so many tokens, and its changes by row."""
    mix = settings.mix or MixSettings()

    def weights_of(one: MixSettings) -> list[float]:
        wanted = shares(one, names)
        return [wanted[name] for name in names]

    weights, changes = weights_of(mix), list[tuple[int, list[float]]]()
    for change in settings.changes:
        changed = weights_of(replace(mix, weights=change.weights))  # sources that it does not name share `other`
        row = ceil((change.tokens - tokens) / settings.train.seq_len)
        if row <= 0:
            weights = changed
        elif changes and changes[-1][0] == row:
            changes[-1] = (row, changed)
        else:
            changes.append((row, changed))
    return weights, changes
