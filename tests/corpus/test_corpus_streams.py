"""Shards that lie elsewhere: the documents of the folder on disk, whatever the network does; a bounded cache."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_server import ShardServer, serving

from herd.corpus import blocks
from herd.corpus.blocks import BlockCache
from herd.corpus.remote import Remote
from herd.corpus.shards import Shards, ShardWriter
from herd.corpus.streamed import Streamed
from herd.corpus.streams import ShardSet, open_shards, write_manifest
from herd.errors import ArtifactError, FormatError, MissingExtraError, SettingError, StorageError

CHECK = 256  # bytes of a block here


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("herd.corpus.remote._wait", lambda _: None)


def write(folder: Path, count: int = 40, seed: int = 0, vocabulary: int = 1000) -> Path:
    rng = np.random.default_rng(seed)
    with ShardWriter(folder, vocabulary, tokenizer="tok", check_bytes=CHECK) as writer:
        for n in range(count):
            ids = rng.integers(0, vocabulary, int(rng.integers(0, 90)))
            writer.add(ids, id=f"{seed}-{n}", source="web", lang="en")
    return folder


def write_many(folder: Path) -> list[Path]:
    parts = [write(folder / f"part-{n}", 10 + 5 * n, n) for n in range(3)]
    write_manifest(folder, [part.name for part in parts])
    return parts


def cache(tmp_path: Path, limit: int = 1 << 20) -> BlockCache:
    return BlockCache(tmp_path / "cache", limit)


def same(store: ShardSet, parts: list[Path]) -> None:
    assert len(store.section_tokens) == len(parts)
    for index, part in enumerate(parts):
        here, there = Shards.open(part), store.section(index)
        assert np.array_equal(here.offsets, there.offsets)
        for n in np.random.default_rng(0).permutation(here.n_documents):
            assert there.document(int(n)).dtype == here.tokens.dtype
            assert np.array_equal(there.document(int(n)), here.document(int(n)))


@pytest.fixture
def server(tmp_path):
    write(tmp_path / "web")
    with serving(tmp_path) as one:
        yield one


def test_a_web_server_gives_the_folder_s_documents(server, tmp_path):
    same(open_shards(f"{server.url}/web", cache(tmp_path)), [tmp_path / "web"])
    fetched = server.ranges()
    assert len(fetched) == len(set(fetched)) == -(-(tmp_path / "web" / "tokens.bin").stat().st_size // CHECK)


@pytest.mark.parametrize("vocabulary", [1000, 100_000])
def test_a_manifest_makes_many_folders_one_store(tmp_path, vocabulary):
    parts = write_many(tmp_path / "all")
    store = open_shards(tmp_path / "all")
    same(store, parts)
    with serving(tmp_path) as server:
        streamed = open_shards(f"{server.url}/all/", cache(tmp_path))
        same(streamed, parts)
        assert streamed.fingerprint == store.fingerprint != open_shards(parts[0]).fingerprint
        assert streamed.n_tokens == sum(Shards.open(part).n_tokens for part in parts)


def test_fsspec_s_memory_file_system_is_one_more_place(tmp_path):
    import fsspec

    parts = write_many(tmp_path / "all")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "all"), "/shards", recursive=True)
    try:
        same(open_shards("memory://shards", cache(tmp_path)), parts)
    finally:
        memory.rm("/shards", recursive=True)


def test_only_what_is_read_is_fetched(server, tmp_path):
    store = open_shards(f"{server.url}/web", cache(tmp_path))
    opened, here = store.section(0), Shards.open(tmp_path / "web")
    longest = int(np.argmax(np.diff(here.offsets)))
    opened.document(longest)
    size = 2 * len(here.document(longest))
    assert 1 <= len(server.ranges()) <= size // CHECK + 2


def test_a_flaky_server_is_asked_again(server, tmp_path):
    store = open_shards(f"{server.url}/web", cache(tmp_path))
    store.section(0)
    server.busy, server.short, server.damage = 2, 3, 1
    same(store, [tmp_path / "web"])


def test_a_server_that_stays_away_is_told_with_its_address(server, tmp_path):
    store = open_shards(f"{server.url}/web", cache(tmp_path))
    opened = store.section(0)
    server.busy = 1000
    with pytest.raises(ArtifactError, match=r"(?s)cannot be read: .*503.*web/tokens.bin.*it goes on"):
        [opened.document(n) for n in range(40)]


def test_a_refusal_is_not_asked_again(server, tmp_path):
    server.refuse = 403
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_shards(f"{server.url}/web", cache(tmp_path))
    assert len(server.asked) <= 2


def test_ranges_cut_short_to_the_end_are_an_error(server, tmp_path):
    opened = open_shards(f"{server.url}/web", cache(tmp_path)).section(0)
    server.short = 1000
    with pytest.raises(ArtifactError, match="251 bytes came where 256 were asked for"):
        [opened.document(n) for n in range(40)]


def test_a_server_without_ranges_is_an_error_not_wrong_tokens(server, tmp_path):
    opened = open_shards(f"{server.url}/web", cache(tmp_path)).section(0)
    server.ignore_ranges = True
    with pytest.raises(ArtifactError, match="bytes came where 256 were asked for"):
        [opened.document(n) for n in range(40)]


def test_an_address_without_shards(server, tmp_path):
    with pytest.raises(ArtifactError, match=r"no shards.json here .*nothing/shards.json"):
        open_shards(f"{server.url}/nothing", cache(tmp_path))


def test_a_file_that_is_written_again_meanwhile_is_refused(server, tmp_path):
    store = open_shards(f"{server.url}/web", cache(tmp_path))
    opened = store.section(0)
    path = tmp_path / "web" / "tokens.bin"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ArtifactError, match=r"(?s)damaged, or the file was written again.*web/tokens.bin"):
        [opened.document(n) for n in range(40)]


def test_shards_that_are_others_than_the_manifest_s_are_refused(tmp_path):
    parts = write_many(tmp_path / "all")
    write(parts[1], 15, seed=9)
    with serving(tmp_path) as server:
        for store in (open_shards(tmp_path / "all"), open_shards(f"{server.url}/all", cache(tmp_path))):
            store.section(0)
            with pytest.raises(ArtifactError, match="not the shards that the manifest names"):
                store.section(1)


def test_other_shards_at_the_same_address_are_not_mistaken_for_what_is_cached(server, tmp_path):
    same(open_shards(f"{server.url}/web", cache(tmp_path)), [tmp_path / "web"])
    write(tmp_path / "web", seed=5)
    same(open_shards(f"{server.url}/web", cache(tmp_path)), [tmp_path / "web"])


def test_what_says_where_documents_begin_is_verified(server, tmp_path):
    path = tmp_path / "web" / "documents.npy"
    offsets = np.load(path)
    offsets[1] += 1
    np.save(path, offsets)
    with pytest.raises(ArtifactError, match=r"documents.npy is not the file that shards.json speaks of"):
        open_shards(f"{server.url}/web", cache(tmp_path)).section(0)


def test_shards_of_an_older_herd_are_refused_with_what_to_do(server, tmp_path):
    path = tmp_path / "web" / "shards.json"
    path.write_text(path.read_text().replace("check_bytes", "other"))
    with pytest.raises(ArtifactError, match="no checksums of their parts"):
        open_shards(f"{server.url}/web", cache(tmp_path)).section(0)


@pytest.mark.parametrize("text", ["[]", '{"sections": [{}]}', '{"sections": []}', "{"])
def test_a_manifest_that_is_none(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(FormatError):
        open_shards(tmp_path)


def test_folders_of_two_tokenizers_are_no_store(tmp_path):
    write(tmp_path / "a")
    with ShardWriter(tmp_path / "b", 1000, tokenizer="other") as writer:
        writer.add([1, 2], id="b", source="web", lang="en")
    with pytest.raises(FormatError, match="several tokenizers"):
        write_manifest(tmp_path, ["a", "b"])


@pytest.mark.parametrize(
    ("url", "error", "said"), [("nope://a/b", SettingError, "no protocol"), ("s3://b/a", None, "")]
)
def test_protocols_that_are_not_there(tmp_path, monkeypatch, url, error, said):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(error or MissingExtraError, match=said or r"s3fs.*(?s:.)*herd\[remote\]"):
        open_shards(url, cache(tmp_path))


def test_the_cache_is_found_again_and_damage_in_it_is_mended(server, tmp_path):
    store = open_shards(f"{server.url}/web", cache(tmp_path))
    same(store, [tmp_path / "web"])
    before = len(server.ranges())
    same(open_shards(f"{server.url}/web", cache(tmp_path)), [tmp_path / "web"])
    assert len(server.ranges()) == before
    found = sorted((tmp_path / "cache").glob("*/[0-9]*"))
    found[0].write_bytes(b"x" * CHECK)
    found[1].write_bytes(b"short")
    same(open_shards(f"{server.url}/web", cache(tmp_path)), [tmp_path / "web"])
    assert len(server.ranges()) == before + 2


@given(st.integers(1, 20))
def test_the_cache_stays_within_its_size(tmp_path_factory, held):
    folder = tmp_path_factory.mktemp("bounded")
    one = BlockCache(folder / "cache", held * CHECK)
    rng, bytes_of = np.random.default_rng(held), {n: bytes([n]) * CHECK for n in range(30)}
    fetched = []
    for n in rng.integers(0, 30, 40).tolist():
        one._mapped.clear()  # as in a process that reads more blocks than it keeps mapped
        got = one.block(("k", n), CHECK, blocks.zlib.crc32(bytes_of[n]), lambda n=n: fetched.append(n) or bytes_of[n])
        assert bytes(got) == bytes_of[n]
        there = list((folder / "cache").glob("*/*"))
        assert len(there) <= max(1, held)


def test_a_block_that_was_swept_away_stays_readable_while_it_is_held(tmp_path):
    one = BlockCache(tmp_path, CHECK)
    got = [
        one.block(("k", n), CHECK, blocks.zlib.crc32(bytes([n]) * CHECK), lambda n=n: bytes([n]) * CHECK)
        for n in range(5)
    ]
    assert [int(block[0]) for block in got] == list(range(5))
    assert len(list(tmp_path.glob("*/*"))) == 1


def test_a_full_disk_is_told_and_nothing_is_left_behind(server, tmp_path, monkeypatch):
    opened = open_shards(f"{server.url}/web", cache(tmp_path)).section(0)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("herd.files.os.fsync", full)
        with pytest.raises(StorageError, match=r"(?s)No space left.*make room"):
            [opened.document(n) for n in range(40)]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.name.endswith(".part")]
    same(open_shards(f"{server.url}/web", cache(tmp_path)), [tmp_path / "web"])


def test_a_cache_of_nothing_is_refused(tmp_path):
    with pytest.raises(SettingError, match="holds nothing"):
        BlockCache(tmp_path, 0)


def test_what_is_expected_is_there_before_it_is_read(server, tmp_path):
    store = open_shards(f"{server.url}/web", cache(tmp_path))
    store.expect(0, 0, store.n_tokens)
    wanted = -(-(tmp_path / "web" / "tokens.bin").stat().st_size // CHECK)
    end = time.monotonic() + 20
    while len(list((tmp_path / "cache").glob("*/[0-9]*"))) < wanted and time.monotonic() < end:
        time.sleep(0.01)
    before = len(server.ranges())
    same(store, [tmp_path / "web"])
    assert len(server.ranges()) == before == wanted


KILLED = """
import sys
from pathlib import Path
from herd.corpus.blocks import BlockCache
from herd.corpus.streams import open_shards
opened = open_shards(sys.argv[1], BlockCache(Path(sys.argv[2]), 1 << 20)).section(0)
for n in range(40):
    opened.document(n)
    print(n, flush=True)
"""


@pytest.mark.slow
def test_a_reader_that_is_killed_leaves_a_cache_that_goes_on(server, tmp_path):
    script = [sys.executable, "-c", KILLED, f"{server.url}/web", str(tmp_path / "cache")]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.strip() == "9":
                server.hold.clear()
                process.kill()
        process.wait()
    server.hold.set()
    before = len(server.ranges())
    assert before
    same(open_shards(f"{server.url}/web", cache(tmp_path)), [tmp_path / "web"])
    assert len(set(server.ranges())) == -(-(tmp_path / "web" / "tokens.bin").stat().st_size // CHECK)
    assert len(server.ranges()) <= len(set(server.ranges())) + 1  # what was under way


def test_a_streamed_folder_tells_where_it_is(server, tmp_path):
    opened = open_shards(f"{server.url}/web", cache(tmp_path)).section(0)
    assert isinstance(opened, Streamed)
    assert opened.place == Remote(f"{server.url}/web")
    with pytest.raises(IndexError):
        opened.document(40)
    assert isinstance(server, ShardServer)
