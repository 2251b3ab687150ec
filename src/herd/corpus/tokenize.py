"""Documents -> token shards, split into training and validation by document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from herd.corpus.chance import drawn
from herd.corpus.records import Document
from herd.corpus.shards import Shards, ShardWriter
from herd.errors import InputError
from herd.progress import Progress, Silent

_BATCH_CHARACTERS = 1 << 20  # encoded at once, so that the tokenizer's threads have work


class Encoder(Protocol):
    """What shards need of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def bos(self) -> int: ...

    @property
    def end_of_text(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def encode_batch(self, texts: Sequence[str], /) -> Sequence[Sequence[int]]: ...


@dataclass(frozen=True)
class Splits:
    train: Shards
    validation: Shards


def is_validation(document_id: str, fraction: float, seed: int = 0) -> bool:
    """Whether a document is held out: by the hash of its id alone, so it does not depend on the rest of the corpus."""
    return drawn(seed, document_id) < fraction


def tokenize(
    documents: Iterable[Document],
    tokenizer: Encoder,
    folder: Path,
    progress: Progress | None = None,
    *,
    validation_fraction: float = 0.0,
    seed: int = 0,
) -> Splits:
    """Write folder/train and folder/validation; each document is BOS, its ids, end_of_text.

    Copies of a document (the epochs of a mix share its id) fall on the same side. Validation takes each id once.
    """
    progress = progress or Silent()
    done = tokens = 0
    held_out: set[str] = set()
    with ExitStack() as stack:
        train, validation = (
            stack.enter_context(ShardWriter(folder / name, tokenizer.vocab_size, tokenizer=tokenizer.fingerprint))
            for name in ("train", "validation")
        )
        for batch in _batches(documents):
            for document, ids in zip(batch, tokenizer.encode_batch([one.text for one in batch]), strict=True):
                writer = train
                if is_validation(document.id, validation_fraction, seed):
                    if document.id in held_out:
                        continue
                    held_out.add(document.id)
                    writer = validation
                row = [tokenizer.bos, *ids, tokenizer.end_of_text]
                writer.add(row, id=document.id, source=document.source, lang=document.lang)
                tokens += len(row)
            done += len(batch)
            progress.update(done, done, "documents tokenized", {"tokens": tokens})
        if not done:
            raise InputError("there is no document to tokenize", where=str(folder))
    return Splits(Shards.open(folder / "train"), Shards.open(folder / "validation"))


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
