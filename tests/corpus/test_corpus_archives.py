"""Web archives, tables, packed files and addresses: parity with another reader, parts of files, and damage."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.corpus.read import parts_of, read, read_part, units
from herd.corpus.read.http import parse_answer
from herd.corpus.read.kinds import kind_of
from herd.corpus.read.unit import Part
from herd.corpus.read.warc import records
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings

DATA = Path(os.environ.get("HERD_DATA", Path(__file__).parents[2].parent / "shared/data")) / "web/warc"
NAMES = sorted(path.name for path in DATA.glob("*"))
WITH_TEXT = ("response", "resource", "conversion")


def page(number: int) -> bytes:
    words = random.Random(number).choices(
        ["river", "stone", "lantern", "harbour", "winter", "copper", "garden", "letter"], k=60
    )
    return f"<html><title>Page {number}</title><body><p>{' '.join(words)}.</p></body></html>".encode()


def record(number: int, body: bytes | None = None, http: bytes = b"Content-Type: text/html\r\n") -> bytes:
    body = page(number) if body is None else body
    content = b"HTTP/1.1 200 OK\r\n" + http + b"\r\n" + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number:08d}>\r\n"
        f"WARC-Target-URI: http://e.org/{number}\r\nWARC-Date: 2024-05-18T01:58:10Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content + b"\r\n\r\n"


def split(path: Path, **more: Any) -> tuple[list[Document], list[Unreadable]]:
    """Read through units, as the engine does."""
    limits = ReadSettings(**more)
    found, aside = units(path, limits)
    items = [item for unit in found for item in read(unit, limits)]
    return [i for i in items if isinstance(i, Document)], [*aside, *(i for i in items if isinstance(i, Unreadable))]


PACKING: dict[str, Callable[[list[bytes]], bytes]] = {
    "a.warc": b"".join,
    "a.warc.gz": lambda rows: b"".join(map(gzip.compress, rows)),
    "whole.warc.gz": lambda rows: gzip.compress(b"".join(rows)),
    "a.warc.zst": lambda rows: b"".join(map(zstandard.ZstdCompressor().compress, rows)),
}


@pytest.mark.parametrize("name", PACKING)
def test_an_archive_however_packed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACKING[name]([record(number) for number in range(40)]))
    found, aside = split(tmp_path / name)
    assert aside == []
    assert [one.id for one in found] == [f"{number:08d}" for number in range(40)]
    assert found[7].url == "http://e.org/7"
    assert found[7].meta["date"] == "2024-05-18T01:58:10Z"
    assert all(word in found[7].text for word in page(7).decode().split("<p>")[1].split("</p>")[0].split())


@pytest.mark.parametrize("name", [name for name in NAMES if kind_of(name).endswith("warc")])
def test_records_are_those_that_fastwarc_reads(name: str) -> None:
    found = parts_of(DATA / name, ReadSettings())[0]
    with open(DATA / name, "rb") as handle:
        ours = [one for one in records(handle, found[0], ReadSettings()) if not isinstance(one, Unreadable)]
    text = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
    theirs = [
        (one.headers["WARC-Record-ID"], one.headers.get("WARC-Target-URI"), one.reader.read())
        for one in ArchiveIterator(str(DATA / name), record_types=text, parse_http=False, quirks_mode=True)
    ]
    read_ours = [one for one in ours if one.kind in WITH_TEXT]
    assert [(one.fields["warc-record-id"], one.fields.get("warc-target-uri"), one.data) for one in read_ours] == theirs


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data: {DATA} is missing (set HERD_DATA)")
def test_every_archive_at_hand_is_read_or_told() -> None:
    found, aside = split(DATA)
    assert len(found) > 25
    assert {one.source for one in found} == {"warc"}, "archives of one folder are one collection"
    assert all(one.meta.get("date") for one in found), "every page of an archive knows its date"
    assert {one.reason for one in aside} == {"unknown_format", "not_a_page", "bad_record", "no_text"}
    lost = [(one.file, one.place) for one in aside if one.reason == "bad_record"]
    assert ("warcio_example-trunc.warc", "byte 2560") in lost


@settings(max_examples=40, deadline=None)
@given(size=st.integers(300, 20_000), name=st.sampled_from(["a.warc.gz", "a.warc.zst", "whole.warc.gz", "rows.jsonl"]))
def test_parts_of_a_file_are_the_file(tmp_path_factory: pytest.TempPathFactory, size: int, name: str) -> None:
    path = tmp_path_factory.mktemp("parts") / name
    rows = [json.dumps({"id": str(k), "text": "word " * (k % 50 + 1)}).encode() + b"\n" for k in range(60)]
    path.write_bytes(PACKING[name]([record(k) for k in range(60)]) if name in PACKING else b"".join(rows))
    whole, _ = split(path)
    parts, aside = split(path, unit_bytes=size)
    assert [(one.id, one.text) for one in parts] == [(one.id, one.text) for one in whole]
    assert aside == []


@settings(max_examples=60, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), name=st.sampled_from(["a.warc", "a.warc.gz"]))
def test_one_wrong_byte_costs_one_record(
    tmp_path_factory: pytest.TempPathFactory, at: float, value: int, name: str
) -> None:
    data = bytearray(PACKING[name]([record(number) for number in range(20)]))
    data[int(at * len(data))] = value
    path = tmp_path_factory.mktemp("damage") / name
    path.write_bytes(data)
    found, _ = split(path)
    good = {f"{number:08d}" for number in range(20)}
    # In a plain file a wrong length can take the next record along with its own.
    assert len(good & {one.id for one in found}) >= (18 if name == "a.warc" else 19)


@pytest.mark.parametrize("name", ["a.warc.gz", "a.warc.zst"])
def test_a_damaged_member_is_told_with_its_offset(tmp_path: Path, name: str) -> None:
    members = [PACKING[name]([record(number)]) for number in range(10)]
    offset = sum(map(len, members[:4]))
    members[4] = members[4][:20] + bytes(len(members[4]) - 20)
    (tmp_path / name).write_bytes(b"".join(members))
    found, aside = split(tmp_path / name)
    assert [int(one.id) for one in found] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [one.place for one in aside] == [f"byte {offset}"]


@pytest.mark.parametrize("name", PACKING)
def test_an_archive_that_is_cut_short(tmp_path: Path, name: str) -> None:
    rows = [record(number, os.urandom(3000).hex().encode()) for number in range(10)]
    data = PACKING[name](rows)
    (tmp_path / name).write_bytes(data[: len(data) - 1200])
    found, aside = split(tmp_path / name)
    assert len(found) == 9
    assert [one.reason for one in aside] == ["truncated"]


def test_what_is_no_page_is_told(tmp_path: Path) -> None:
    rows = [
        record(0, b"\xff\xd8\xff", b"Content-Type: image/jpeg\r\n"),
        record(1).replace(b"200 OK", b"404 No"),
        record(2).replace(b"WARC-Date", b"WARC-Truncated: length\r\nWARC-Date"),
        record(3, b"x", b"Content-Type: text/html\r\nContent-Encoding: br\r\n"),
        record(4, b"<p>\xe4hnlich wie Baum</p>", b"Content-Type: text/html; charset=iso-8859-1\r\n"),
        record(5, b"9" * 5000),
        record(6, b"<html><script>1</script></html>"),
        record(7).replace(b"Content-Length: ", b"Content-Length: x"),
        record(8),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(rows))
    found, aside = split(tmp_path / "a.warc", max_record_bytes=4000)
    assert [one.reason for one in aside] == [
        *("not_a_page", "http_status", "truncated_page", "bad_http", "record_too_long", "no_text", "bad_record")
    ]
    assert [one.id for one in found] == ["00000004", "00000008"]
    assert "ähnlich" in found[0].text


def test_codings_of_an_answer() -> None:
    chunked = b"5\r\nHello\r\n7;x=1\r\n, World\r\n0\r\n\r\n"
    head = b'HTTP/1.1 200 OK\r\ncontent-type: text/HTML; Charset="UTF-8"\r\nTransfer-Encoding: chunked\r\n'
    answer = parse_answer(head + b"\r\n" + chunked, 1000)
    assert (answer.status, answer.mime, answer.charset, answer.body) == (200, "text/html", "UTF-8", b"Hello, World")
    joined = parse_answer(head + b"\r\nHello, World", 1000)
    assert joined.body == b"Hello, World", "an archive that has joined the chunks keeps the field"
    packed = gzip.compress(b"Hello")
    assert parse_answer(b"HTTP/1.0 200\nContent-Encoding: gzip\n\n" + packed, 1000).body == b"Hello"
    bomb = gzip.compress(b"0" * 100_000)
    with pytest.raises(Exception, match="more than 1,000 bytes"):
        parse_answer(b"HTTP/1.0 200\nContent-Encoding: gzip\n\n" + bomb, 1000)


def test_row_groups_are_units_and_their_rows_keep_their_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"row {k}" for k in range(10)]}), tmp_path / "t.parquet", row_group_size=4)
    parts = parts_of(tmp_path, ReadSettings())[0]
    assert [(part.group, part.start) for part in parts] == [(0, 0), (1, 4), (2, 8)]
    found = [one for part in parts for one in read_part(part, ReadSettings())]
    assert [one.id for one in found if isinstance(one, Document)] == [f"t.parquet:{k}" for k in range(10)]


def test_a_dataset_that_was_saved_to_disk(tmp_path: Path) -> None:
    table = pa.table({"text": ["one", "two"]})
    with pa.ipc.new_stream(str(tmp_path / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nAbout the data.")
    found, aside = split(tmp_path)
    assert [(one.text, one.source) for one in found] == [("one", "data"), ("two", "data")]
    assert {one.file: one.reason for one in aside} == {
        "README.md": "dataset_card",
        "dataset_info.json": "unknown_format",
    }


def test_zstd_lines_and_a_stream_that_ends_too_early(tmp_path: Path) -> None:
    rows = [json.dumps({"text": os.urandom(200).hex()}).encode() + b"\n" for _ in range(100)]
    data = zstandard.ZstdCompressor().compress(b"".join(rows))
    (tmp_path / "a.jsonl.zst").write_bytes(data)
    assert len(split(tmp_path)[0]) == 100
    (tmp_path / "a.jsonl.zst").write_bytes(data[: len(data) // 2])
    _, aside = split(tmp_path)
    assert [one.reason for one in aside] == ["truncated"]


def test_an_address_is_read_like_a_folder(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the extra 'remote' is not installed")
    memory = fsspec.filesystem("memory")
    rows = b"".join(json.dumps({"text": f"text {k}"}).encode() + b"\n" for k in range(50))
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["from a table"]}), table)
    files = {"deep/a.jsonl": rows, "b.warc.gz": gzip.compress(record(1)), "c.parquet": table.getvalue()}
    for name, data in files.items():
        memory.pipe(f"/bucket/{name}", data)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    try:
        there, here = split("memory://bucket", unit_bytes=400), split(tmp_path, unit_bytes=400)  # type: ignore[arg-type]
        assert [(one.id, one.text, one.meta) for one in there[0]] == [(one.id, one.text, one.meta) for one in here[0]]
        assert {one.source for one in there[0]} == {"a", "bucket", "c"}
        assert len(there[0]) == 52
        assert (there[1], here[1]) == ([], [])
        assert [one.text for one in split("memory://bucket/c.parquet")[0]] == ["from a table"]  # type: ignore[arg-type]
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_part_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b'{"text": "a"}\n')
    found = list(read_part(Part(str(tmp_path / "x"), "set/a.jsonl", "set", "jsonl", 14), ReadSettings()))
    assert [one.id for one in found if isinstance(one, Document)] == ["set/a.jsonl:1"]
