"""The text on which `herd quantize --check` compares: the user's, the run's own held-out dialogues, or herd's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from herd.errors import ArtifactError, InputError
from herd.progress import Progress

if TYPE_CHECKING:
    from herd.quantize.reading import Passage
    from herd.text import Tokenizer
    from herd.weights.stored import StoredModel

_LONGEST = 1024  # tokens of one passage
_DATASETS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv", ".tsv")
Chosen = tuple[list["Passage"], Callable[[list[int]], str], str]


def passages(model: StoredModel, source: Path, asked: str, tokens: int, progress: Progress) -> Chosen:
    """At most about `tokens` tokens as passages, how to show ids, and what was read, in words.

    `asked` is a file of text, or of rows with dialogues or a column "text"; "" is the dev split of the run that the
    model lies in, else herd's own paragraphs in eight languages.
    """
    from herd.weights.registry import tokenizer_of

    try:
        tokenizer = tokenizer_of(model)
    except ArtifactError:
        if asked:
            raise
        return _without_tokenizer(model, progress)
    if asked:
        path, said = Path(asked), Path(asked).name
        made = _rows(path, tokenizer) if path.name.lower().endswith(_DATASETS) else _running(path, tokenizer, model)
    elif dev := _dev_of(source):
        made, said = _dialogues(dev, tokenizer), "held-out dialogues of the model's run"
    else:
        made, said = _own(model, progress), "herd's text in eight languages"
    return _limited(made, model, tokens, said, progress), tokenizer.decode, said


def _limited(made: Iterator[Passage], model: StoredModel, tokens: int, said: str, progress: Progress) -> list[Passage]:
    from herd.quantize.reading import Passage

    longest = min(_LONGEST, model.config.max_seq_len)
    kept: list[Passage] = []
    count = 0
    for passage in made:
        room = min(longest, tokens - count)
        kept.append(Passage(passage.ids[:room], passage.counted[:room]))
        count += len(kept[-1].ids)
        if count >= tokens:
            progress.note(f"{said}: the first {count:,} tokens are read (--tokens reads more)")
            break
    return kept


def _running(path: Path, tokenizer: Tokenizer, model: StoredModel) -> Iterator[Passage]:
    """Running text in windows, each after the model's begin token; read as it is needed."""
    from herd.quantize.reading import Passage

    begin = () if model.bos is None else (model.bos,)
    window = min(_LONGEST, model.config.max_seq_len) - len(begin)
    ids: list[int] = []
    try:
        with open(path, encoding="utf-8") as handle:
            for lines in iter(lambda: "".join(itertools.islice(handle, 200)), ""):
                ids += tokenizer.encode(lines)
                while len(ids) >= window:
                    yield Passage((*begin, *ids[:window]))
                    ids = ids[window:]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text: {error}", where=str(path)) from error
    yield Passage((*begin, *ids))


def _rows(path: Path, tokenizer: Tokenizer) -> Iterator[Passage]:
    from herd.quantize.reading import Passage
    from herd.text import encode_dialogue
    from herd.text.datasets import load_dialogues
    from herd.text.datasets.read import read_rows

    _, first = next(read_rows(path), ("", {}))
    if isinstance(first.get("text"), str):
        for _, row in read_rows(path):
            yield Passage((tokenizer.bos, *tokenizer.encode(str(row["text"]))))
        return
    for messages in load_dialogues(path).records:
        dialogue = encode_dialogue(tokenizer, messages)
        yield Passage(tuple(dialogue.ids), tuple(dialogue.trained))


def _dialogues(path: Path, tokenizer: Tokenizer) -> Iterator[Passage]:
    from herd.road.quality import answers
    from herd.road.world import read_tasks

    yield from answers(tokenizer, read_tasks(path.parent, path.stem))


def _own(model: StoredModel, progress: Progress) -> Iterator[Passage]:
    from herd.quantize.reading import Passage
    from herd.weights.prove import default_text, passages_of

    for ids in passages_of(model, default_text(), progress):
        yield Passage(tuple(ids))


def _without_tokenizer(model: StoredModel, progress: Progress) -> Chosen:
    return list(_own(model, progress)), str, "random ids (the model has no tokenizer)"


def _dev_of(source: Path) -> Path | None:
    """The held-out dialogues of the run that a model lies in; none counts for a suite's score."""
    found: Sequence[Path] = sorted(source.resolve().parent.glob("world-*/dev.jsonl"))
    return found[-1] if found else None
