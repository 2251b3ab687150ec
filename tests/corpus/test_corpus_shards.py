"""Token shards: what was written comes back, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from corpus_texts import clean
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.corpus.shards import Shards, ShardWriter
from herd.corpus.tokenize import is_validation, tokenize
from herd.errors import ArtifactError, HerdError, InputError


class Bytes:
    """A tokenizer of UTF-8 bytes."""

    vocab_size, bos, end_of_text, fingerprint = 300, 256, 257, "bytes"

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]


def write(folder: Path, rows: Sequence[Sequence[int]], vocab_size: int = 1000) -> Shards:
    with ShardWriter(folder, vocab_size) as writer:
        for index, row in enumerate(rows):
            writer.add(row, id=f"d{index}", source="a" if index % 2 else "b", lang="en")
    return Shards.open(folder)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 99_999), max_size=50), max_size=20), st.sampled_from([100_000, 128_256]))
def test_documents_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], vocab: int) -> None:
    shards = write(tmp_path_factory.mktemp("s"), rows, vocab)
    assert shards.n_documents == len(rows)
    assert shards.n_tokens == sum(map(len, rows))
    assert [shards.document(k).tolist() for k in range(len(rows))] == rows
    shards.verify()


@pytest.mark.parametrize(("vocab", "width"), [(65_536, 2), (65_537, 4)])
def test_the_width_follows_the_vocabulary(tmp_path: Path, vocab: int, width: int) -> None:
    shards = write(tmp_path, [[0, vocab - 1]], vocab)
    assert shards.tokens.dtype.itemsize == width
    assert shards.document(0).tolist() == [0, vocab - 1]


def test_an_id_outside_the_vocabulary_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        write(tmp_path, [[1000]], 1000)


def test_counts_and_lineage(tmp_path: Path) -> None:
    shards = write(tmp_path, [[1, 2, 3], [4], [5, 6]])
    assert shards.facts["by_source"] == {"a": {"documents": 1, "tokens": 1}, "b": {"documents": 2, "tokens": 5}}
    assert [row["id"] for row in shards.lineage()] == ["d0", "d1", "d2"]
    with pytest.raises(IndexError):
        shards.document(3)


@pytest.mark.parametrize("name", ["tokens.bin", "documents.npy", "lineage.jsonl.gz", "shards.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, [[1, 2, 3]] * 5)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match="missing") as caught:
        Shards.open(tmp_path)
    assert name in caught.value.where


@pytest.mark.parametrize("name", ["tokens.bin", "documents.npy", "shards.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, share: float) -> None:
    write(tmp_path, [[1, 2, 3]] * 50)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(HerdError) as caught:
        Shards.open(tmp_path)
    assert name in str(caught.value)


def test_a_truncated_lineage_is_found_by_verify(tmp_path: Path) -> None:
    shards = write(tmp_path, [[1, 2, 3]] * 50)
    data = (tmp_path / "lineage.jsonl.gz").read_bytes()
    (tmp_path / "lineage.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(HerdError, match="cut short"):
        shards.verify()


def test_a_changed_bit_is_found_by_verify(tmp_path: Path) -> None:
    write(tmp_path, [[1, 2, 3]] * 5)
    data = bytearray((tmp_path / "tokens.bin").read_bytes())
    data[7] ^= 1
    (tmp_path / "tokens.bin").write_bytes(data)
    shards = Shards.open(tmp_path)
    with pytest.raises(ArtifactError, match="hash"):
        shards.verify()


def test_a_description_of_something_else_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [[1]])
    (tmp_path / "shards.json").write_text(json.dumps({"tokens": "many"}))
    with pytest.raises(ArtifactError, match="not the description"):
        Shards.open(tmp_path)


def test_an_interrupted_writer_leaves_nothing_that_opens(tmp_path: Path) -> None:
    write(tmp_path, [[1, 2, 3]])
    with suppress(KeyError), ShardWriter(tmp_path, 1000) as writer:
        writer.add([1], id="a", source="s", lang="en")
        raise KeyError
    with pytest.raises(ArtifactError, match="missing"):
        Shards.open(tmp_path)


def test_tokenize_frames_each_document_and_splits_by_id(tmp_path: Path) -> None:
    documents = clean(400)
    splits = tokenize(documents, Bytes(), tmp_path, validation_fraction=0.1)
    texts = {document.id: document.text for document in documents}
    seen = []
    for shards in (splits.train, splits.validation):
        assert shards.facts["tokenizer"] == "bytes"
        for index, row in enumerate(shards.lineage()):
            ids = shards.document(index).tolist()
            assert (ids[0], ids[-1]) == (256, 257)
            assert bytes(ids[1:-1]).decode() == texts[row["id"]]
            seen.append(row["id"])
    assert sorted(seen) == sorted(texts)
    assert 20 <= splits.validation.n_documents <= 60
    held = {row["id"] for row in splits.validation.lineage()}
    smaller = tokenize(documents[:100], Bytes(), tmp_path / "again", validation_fraction=0.1)
    assert {row["id"] for row in smaller.validation.lineage()} == held & {d.id for d in documents[:100]}


def test_copies_fall_on_one_side_and_are_validated_once(tmp_path: Path) -> None:
    documents = clean(100) * 3
    splits = tokenize(documents, Bytes(), tmp_path, validation_fraction=0.2)
    train = [row["id"] for row in splits.train.lineage()]
    held = [row["id"] for row in splits.validation.lineage()]
    assert not set(train) & set(held)
    assert len(held) == len(set(held)) > 5
    assert len(train) == 3 * len(set(train))


def test_the_hash_splits_evenly() -> None:
    share = np.mean([is_validation(f"id{k}", 0.25) for k in range(20_000)])
    assert abs(share - 0.25) < 0.01
    assert not any(is_validation(f"id{k}", 0.0) for k in range(100))
    assert all(is_validation(f"id{k}", 1.0) for k in range(100))


def test_nothing_to_tokenize(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        tokenize([], Bytes(), tmp_path)
