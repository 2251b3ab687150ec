"""One small world for the tests of the paddock, made once."""

from __future__ import annotations

from functools import cache

from herd.corpus.documents import Document
from herd.paddock import PaddockSettings, Task, World, WorldSettings, make_world, tasks
from herd.paddock.documents import documents
from herd.paddock.settings import DOCUMENT_KINDS
from herd.paddock.task import Split

SETTINGS = PaddockSettings(
    world=WorldSettings(seed=5, towns=8, held_out=0.2),
    documents=dict.fromkeys(DOCUMENT_KINDS, 40),
    noise_per_kind=15,
)


@cache
def world() -> World:
    return make_world(SETTINGS.world)


@cache
def pages() -> tuple[Document, ...]:
    return tuple(documents(world(), SETTINGS))


@cache
def some(split: Split, count: int = 64, purpose: str = "tests") -> tuple[Task, ...]:
    return tuple(tasks(world(), split, count, purpose))
