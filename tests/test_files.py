"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from herd.errors import ArtifactError, FormatError, StorageError
from herd.files import (
    atomic_file,
    atomic_folder,
    make_folder,
    read_json,
    read_jsonl,
    replace_folder,
    sha256_of,
    write_json,
    write_jsonl,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _fail(write: Callable[[bytes], object], data: bytes, error: type[BaseException]) -> None:
    write(data)
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_leaves_the_file_that_stood_there(tmp_path: Path, error: type[BaseException]) -> None:
    write_text(tmp_path / "a", "before")
    with pytest.raises(error), atomic_file(tmp_path / "a") as handle:
        _fail(handle.write, b"half", error)
    assert (tmp_path / "a").read_text() == "before"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_folder_that_stood_there(tmp_path: Path, error: type[BaseException]) -> None:
    with atomic_folder(tmp_path / "f") as aside:
        write_text(aside / "a", "before")
    with pytest.raises(error), atomic_folder(tmp_path / "f") as aside:
        _fail((aside / "b").write_bytes, b"half", error)
    assert names(tmp_path) == ["f"]
    assert names(tmp_path / "f") == ["a"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with atomic_folder(tmp_path / "deep" / "f") as aside:
            write_text(aside / name, name)
            assert not (tmp_path / "deep" / "f" / name).exists()
    assert names(tmp_path / "deep") == ["f"]
    assert names(tmp_path / "deep" / "f") == ["b"]


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".f.old").mkdir()
    (tmp_path / f".f.{os.getpid()}.part").mkdir()
    (tmp_path / f".f.{os.getpid()}.part" / "half").touch()
    (tmp_path / "f").mkdir()
    with atomic_folder(tmp_path / "f") as aside:
        assert names(aside) == []
        write_text(aside / "a", "")
    assert names(tmp_path) == ["f"]
    assert names(tmp_path / "f") == ["a"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    write_json(tmp_path / "a.json", 1)
    monkeypatch.setattr(os, call, no_room)
    for write in (write_json, lambda path, value: write_jsonl(path, [value])):
        with pytest.raises(StorageError, match="No space left") as caught:
            write(tmp_path / "a.json", 2)
        assert caught.value.where == str(tmp_path / "a.json")
        assert "make room" in caught.value.mend
    assert read_json(tmp_path / "a.json") == 1
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_while_a_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with atomic_folder(tmp_path / "f") as aside:
        write_text(aside / "a", "before")
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(StorageError), atomic_folder(tmp_path / "f") as aside:
        write_text(aside / "a", "after")
    assert (tmp_path / "f" / "a").read_text() == "before"
    assert names(tmp_path) == ["f"]


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a"):
        open(tmp_path / "missing", "rb")  # noqa: SIM115  (it never opens)


def test_replacing_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    replace_folder(tmp_path / "new", tmp_path / "at")
    assert names(tmp_path) == ["at"]


def test_a_place_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match="cannot make this folder") as caught:
            make_folder(place)
        assert caught.value.where == str(place)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_json_lines_round_trip(tmp_path: Path, name: str) -> None:
    rows = [{"text": "नमस्ते\n\u2028"}, [1, None, 2.5], "half a pair: \udc80", {}]
    assert write_jsonl(tmp_path / name, iter(rows)) == 4
    assert list(read_jsonl(tmp_path / name)) == rows
    assert write_jsonl(tmp_path / name, []) == 0
    assert list(read_jsonl(tmp_path / name)) == []


def test_packed_lines_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_jsonl(tmp_path / name / "rows.jsonl.gz", [{"x": list(range(100))}])
    assert sha256_of(tmp_path / "a" / "rows.jsonl.gz") == sha256_of(tmp_path / "b" / "rows.jsonl.gz")


def test_rows_that_fail_leave_no_file(tmp_path: Path) -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise ValueError

    for name in ("rows.jsonl", "rows.jsonl.gz"):
        with pytest.raises(ValueError):
            write_jsonl(tmp_path / name, rows())
    assert names(tmp_path) == []


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n{"a": 2}\n')
    rows = read_jsonl(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(FormatError, match="line 3 is not JSON") as caught:
        next(rows)
    assert caught.value.where == str(path)
    path.write_text("[" * 100_000)
    with pytest.raises(FormatError, match="line 1 is not JSON"):
        list(read_jsonl(path))


def test_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    write_jsonl(path, [{"digest": hashlib.sha256(bytes([n])).hexdigest()} for n in range(200)])
    whole = path.read_bytes()
    for place in (5, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:place])
        with pytest.raises(FormatError, match="cut short"):
            list(read_jsonl(path))
    for place in range(12, len(whole), 997):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(FormatError):
            list(read_jsonl(path))
    path.write_bytes(b"not gzip at all")
    with pytest.raises(FormatError):
        list(read_jsonl(path))
    path.write_bytes(gzip.compress(b'"\xff\xfe"\n'))
    with pytest.raises(FormatError, match="not UTF-8"):
        list(read_jsonl(path))


def test_missing_and_unreadable(tmp_path: Path) -> None:
    for read in (read_json, lambda path: list(read_jsonl(path))):
        with pytest.raises(ArtifactError, match="missing"):
            read(tmp_path / "none.jsonl")
        with pytest.raises(ArtifactError, match="cannot be read"):
            read(tmp_path)
    (tmp_path / "bad.json").write_bytes(b'"\xff"')
    with pytest.raises(FormatError):
        read_json(tmp_path / "bad.json")


def test_json_keeps_its_order_and_its_letters(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "ไทย", "a": "\udc80"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.index('"b"') < text.index('"a"')
    assert "ไทย" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"b": "ไทย", "a": "\udc80"} == read_json(tmp_path / "a.json")
