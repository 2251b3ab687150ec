"""What stands where a pull goes: nothing is lost, links are followed, and offline a whole folder is enough."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hub_server import Server

from herd.errors import ArtifactError, HubError
from herd.hub.client import Hub
from herd.hub.pull import pull


def test_what_a_user_put_into_the_folder_is_not_lost(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    repo = server.add("org/tiny", model)
    out = tmp_path / "out"
    pull(hub, "org/tiny", out)
    (out / "notes").mkdir()
    assert pull(hub, "org/tiny", out).found
    repo.commit(model | {"README.md": b"# new"})
    server.requests.clear()
    with pytest.raises(ArtifactError, match="did not bring: notes"):
        pull(hub, "org/tiny", out)
    assert server.asked("/resolve/", "HEAD") == []
    shutil.rmtree(out / "notes")
    assert not pull(hub, "org/tiny", out).found
    (out / "mine.txt").write_text("years")
    (out / "config.json").write_text("{}")  # damaged: the folder would be replaced
    with pytest.raises(ArtifactError, match=r"did not bring: mine.txt"):
        pull(hub, "org/tiny", out)
    assert (out / "mine.txt").read_text() == "years"


def test_a_link_to_another_disk_is_followed(server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    server.add("org/tiny", model)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "model")
    pulled = pull(hub, "org/tiny", tmp_path / "out")
    assert pulled.folder == tmp_path / "out"
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "model" / "config.json").is_file()


def test_a_disk_without_links(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = server.add("org/tiny", model)
    pull(hub, "org/tiny", tmp_path / "out")
    repo.commit(model | {"README.md": b"# new"})

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    server.requests.clear()
    pull(hub, "org/tiny", tmp_path / "out")
    assert server.asked("/store/") == []


def test_offline_a_folder_that_is_whole_needs_no_hub(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    server.add("org/tiny", model)
    out, cache = tmp_path / "out", tmp_path / "cache"
    first = pull(hub, "org/tiny", out)
    offline = Hub(server.url, offline=True, token="", cache=cache)
    again = pull(offline, "org/tiny", out)
    assert (again.found, again.commit, again.licence, again.bytes) == (True, first.commit, "llama3.1", first.bytes)
    for wish in ({"revision": "v2"}, {"layout": "gguf"}):
        with pytest.raises(HubError, match="not in the cache"):
            pull(offline, "org/tiny", out, **wish)
    shard = next(out.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(HubError, match="not in the cache"):
        pull(offline, "org/tiny", out)


def test_offline_a_cache_that_lacks_a_shard_says_so(server: Server, model: dict[str, bytes], tmp_path: Path) -> None:
    import huggingface_hub

    server.add("org/tiny", model)
    cache = tmp_path / "cache"
    patterns = ["*.json", "model-00001*"]
    huggingface_hub.snapshot_download(
        "org/tiny", cache_dir=cache, endpoint=server.url, token=False, allow_patterns=patterns
    )
    offline = Hub(server.url, offline=True, token="", cache=cache)
    with pytest.raises(HubError, match=r"offline.*the cache of this machine lacks model-00002"):
        pull(offline, "org/tiny", tmp_path / "out")
