"""Pulling a repository: whole, verified, resumable, and only what belongs to a model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hub_fixtures import Noting
from hub_models import CARD
from hub_server import LARGE, Asked, Server

from herd.errors import ArtifactError, FormatError, HubError, InputError, StorageError
from herd.files import read_json
from herd.hub import download
from herd.hub.client import Hub
from herd.hub.pull import pull
from herd.weights.hf import load_model

TORN = {"config.json": b"{}", "model.safetensors": b"x" * (LARGE + 1)}


def bodies(server: Server) -> list[Asked]:
    return server.asked("/store/") + server.asked("/resolve/")


def test_a_pulled_folder_is_a_model_folder(server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    extra = {"pytorch_model.bin": b"pickle", "train.py": b"import os", "original/params.json": b"{}", ".env": b"A=1"}
    repo = server.add("org/tiny", model | extra)
    pulled = pull(hub, "org/tiny", tmp_path / "out")
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == set(model)
    assert all((out / name).read_bytes() == data for name, data in model.items() if name != "herd.json")
    assert load_model(out).state_dict().keys()
    record = read_json(out / "herd.json")["pulled"]
    assert (record["repo"], record["commit"], record["licence"]) == ("org/tiny", repo.refs["main"], "llama3.1")
    assert pulled.commit == repo.refs["main"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_pulling_again_fetches_nothing_and_mends_what_was_damaged(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    server.add("org/tiny", model)
    out = tmp_path / "out"
    pull(hub, "org/tiny", out)
    server.requests.clear()
    assert pull(hub, "org/tiny", out).found
    assert {one.path.rpartition("/")[2] for one in bodies(server)} <= {"herd.json"}  # ours is signed, theirs is not
    shard = sorted(out.glob("*.safetensors"))[0]
    shard.write_bytes(b"\0" + shard.read_bytes()[1:])
    server.requests.clear()
    assert not pull(hub, "org/tiny", out).found
    assert shard.read_bytes() == model[shard.name]
    assert len(server.asked("/store/")) == 1


def test_a_new_commit_fetches_what_changed(server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    repo = server.add("org/tiny", model)
    first = pull(hub, "org/tiny", tmp_path / "out")
    second = repo.commit({name: data for name, data in model.items() if name != "LICENSE"} | {"README.md": CARD * 2})
    server.requests.clear()
    assert pull(hub, "org/tiny", tmp_path / "out").commit == second
    assert server.asked("/store/") == []
    assert (tmp_path / "out" / "README.md").read_bytes() == CARD * 2
    assert not (tmp_path / "out" / "LICENSE").exists()
    back = pull(hub, "org/tiny", tmp_path / "out", revision=first.commit)
    assert back.commit == first.commit
    assert (tmp_path / "out" / "LICENSE").exists()


def test_a_killed_download_goes_on_where_it_was(server: Server, hub: Hub, tmp_path: Path) -> None:
    """kill -9 in the middle of a file: another process asks for the rest of it alone."""
    block = 2**20  # what the library hands on at a time
    data = os.urandom(2 * block + 12_345)
    server.add("org/large", {"m.gguf": data})
    server.hang_after = 2 * block + 99
    code = (
        "import sys; from pathlib import Path; from herd.hub.client import Hub; from herd.hub.pull import pull\n"
        "pull(Hub(sys.argv[1], token=''), 'org/large', Path(sys.argv[2]))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, server.url, str(tmp_path / "out")])
    try:
        for _ in range(3000):
            parts = list(tmp_path.glob(".out.pull/.m.gguf.*.part"))
            if (parts and parts[0].stat().st_size >= 2 * block) or child.poll() is not None:
                break
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    assert [path.stat().st_size for path in parts] == [2 * block]
    assert not (tmp_path / "out").exists()
    server.hang_after = 0
    server.requests.clear()
    pull(hub, "org/large", tmp_path / "out")
    assert (tmp_path / "out" / "m.gguf").read_bytes() == data
    assert [one.headers.get("range") for one in server.asked("/store/")] == [f"bytes={2 * block}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_broken_connections_and_a_server_without_ranges(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's retries
    server.add("org/tiny", model)
    server.cut_after, server.cuts = 3000, 4
    server.ignore_ranges = True
    pull(hub, "org/tiny", tmp_path / "out")
    assert all((tmp_path / "out" / n).read_bytes() == data for n, data in model.items() if n != "herd.json")


def test_damaged_bytes_are_never_taken(server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    server.add("org/tiny", model)
    server.damage = True
    with pytest.raises(HubError, match=r"arrived damaged.*checksum"):
        pull(hub, "org/tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    server.damage = False
    pull(hub, "org/tiny", tmp_path / "out")
    assert torch.isfinite(load_model(tmp_path / "out").output_weight).all()


def test_names_that_lead_out_of_the_folder(server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    repo = server.add("org/tiny", model)
    bad = ["../evil.json", "/etc/config.json", "a/../../README.md", "LICENSE\n.txt", "C:\\x.json", "con\u202e.json"]
    repo.extra_tree = [{"type": "file", "path": path, "size": 1, "oid": "0" * 40} for path in bad]
    progress = Noting()
    pull(hub, "org/tiny", tmp_path / "deep" / "out", progress=progress)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == set(model)
    assert "../evil.json" in progress.notes[0]


def test_an_index_that_points_elsewhere(server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    index = json.loads(model["model.safetensors.index.json"])
    for place, error in (("../../secret.safetensors", InputError), (7, FormatError)):
        changed = index | {"weight_map": index["weight_map"] | {"model.norm.weight": place}}
        server.add("org/tiny", model | {"model.safetensors.index.json": json.dumps(changed).encode()})
        with pytest.raises(error):
            pull(hub, "org/tiny", tmp_path / "out")
    assert server.asked("/store/" + "0") == []
    assert not (tmp_path / "out").exists()


def test_what_is_no_llama_is_refused_before_its_weights_come(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    other = json.loads(model["config.json"]) | {"model_type": "qwen2"}
    server.add("org/other", model | {"config.json": json.dumps(other).encode()})
    with pytest.raises(ArtifactError, match="qwen2"):
        pull(hub, "org/other", tmp_path / "out")
    packed = json.loads(model["config.json"]) | {"quantization_config": {"quant_method": "gptq"}}
    server.add("org/gptq", model | {"config.json": json.dumps(packed).encode()})
    with pytest.raises(ArtifactError, match="gptq"):
        pull(hub, "org/gptq", tmp_path / "out")
    shards = [name for name in model if name.endswith(".safetensors")]
    assert not any(server.asked(f"/resolve/{name}", method) for name in shards for method in ("GET", "HEAD"))


def test_layouts(server: Server, hub: Hub, tmp_path: Path) -> None:
    meta = {"original/params.json": b"{}", "original/consolidated.00.pth": b"w" * 9, "original/tokenizer.model": b"t"}
    server.add("org/meta", meta | {"LICENSE": b"text", "x.bin": b"p"})
    assert pull(hub, "org/meta", tmp_path / "meta").layout == "meta"
    names = {path.name for path in (tmp_path / "meta").iterdir()}
    assert names == {"params.json", "consolidated.00.pth", "tokenizer.model", "LICENSE", "herd.json"}
    server.add("org/gguf", {"m-Q8_0.gguf": b"GGUF8", "m-BF16.gguf": b"GGUF16"})
    with pytest.raises(InputError, match=r"several GGUF models: m-BF16.gguf, m-Q8_0.gguf"):
        pull(hub, "org/gguf", tmp_path / "gguf")
    pull(hub, "org/gguf", tmp_path / "gguf", layout="gguf", only="*Q8_0.gguf")
    assert (tmp_path / "gguf" / "m-Q8_0.gguf").read_bytes() == b"GGUF8"
    adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"abc"}
    server.add("org/lora", adapter)
    assert pull(hub, "org/lora", tmp_path / "lora").layout == "peft"
    server.add("org/pickles", {"pytorch_model.bin": b"evil", "config.json": b"{}"})
    with pytest.raises(InputError, match="kinds bin, json") as caught:
        pull(hub, "org/pickles", tmp_path / "pickles")
    assert "can run code" in caught.value.mend
    server.add("org/long", TORN | {"config.json": b"{}"})
    with pytest.raises(InputError, match="layout meta"):
        pull(hub, "org/long", tmp_path / "long", layout="meta")


def test_a_foreign_folder_is_not_replaced(server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    server.add("org/tiny", model)
    server.add("org/twin", model)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(ArtifactError, match="not made by herd pull"):
        pull(hub, "org/tiny", mine)
    pull(hub, "org/tiny", tmp_path / "out")
    with pytest.raises(ArtifactError, match="holds org/tiny"):
        pull(hub, "org/twin", tmp_path / "out")
    assert (mine / "thesis.txt").read_text() == "years"


def test_a_disk_without_room_is_told_before_and_during(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("org/tiny", model)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=64_000_010))
        with pytest.raises(StorageError, match=r"GB are to come"):
            pull(hub, "org/tiny", tmp_path / "out")
    assert server.asked("/resolve/", "HEAD") == []

    def full(_: object, block: bytes) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(download._Counted, "write", full)
        with pytest.raises(StorageError, match="No space left"):
            pull(hub, "org/tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    pull(hub, "org/tiny", tmp_path / "out")


def test_offline_takes_the_cache_and_says_so_where_it_holds_nothing(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    import huggingface_hub

    repo = server.add("org/tiny", model)
    cache = tmp_path / "cache"
    huggingface_hub.snapshot_download("org/tiny", cache_dir=cache, endpoint=server.url, token=False)
    server.requests.clear()
    offline = Hub(server.url, offline=True, token="", cache=cache)
    pulled = pull(offline, "org/tiny", tmp_path / "out")
    assert pulled.commit == repo.refs["main"]
    assert server.requests == []
    assert load_model(tmp_path / "out").state_dict().keys()
    with pytest.raises(HubError, match=r"offline.*org/none@main is not in the cache"):
        pull(offline, "org/none", tmp_path / "none")
    with pytest.raises(HubError, match="not in the cache"):
        pull(offline, "org/tiny", tmp_path / "other", revision="../../..")
    kept = next(path for path in cache.rglob("blobs/*") if path.stat().st_size > LARGE)
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    with pytest.raises(HubError, match="damaged in the cache"):
        pull(offline, "org/tiny", tmp_path / "again")
