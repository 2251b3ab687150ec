"""A hub and a line at their worst: what a pull lives through, and what it refuses."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_fixtures import Noting
from hub_server import LARGE, SECRET, Server

from herd.cli import main
from herd.errors import HubError, InputError
from herd.files import read_json
from herd.hub import download
from herd.hub.client import Hub, is_repo_name
from herd.hub.listing import list_files
from herd.hub.pull import pull

BIG = random.Random(0).randbytes(30_000)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries


def test_an_address_whose_signature_runs_out_is_asked_for_again(server: Server, friend: Hub, tmp_path: Path) -> None:
    server.add("org/gguf", {"m.gguf": BIG})
    server.signed_for, server.cut_after, server.cuts = 1, 8000, 3
    pull(friend, "org/gguf", tmp_path / "out")
    assert (tmp_path / "out" / "m.gguf").read_bytes() == BIG
    assert len(server.signatures) == 4  # one for each time that the line broke, and the first
    assert not any("authorization" in one.headers for one in server.asked("/store/"))


def test_a_store_that_refuses_for_good_is_not_asked_for_ever(server: Server, hub: Hub, tmp_path: Path) -> None:
    server.add("org/gguf", {"m.gguf": BIG})
    server.fail["/store/"] = 403
    with pytest.raises(HubError, match=r"store of large files answers with status 403 where m\.gguf"):
        pull(hub, "org/gguf", tmp_path / "out")
    assert len(server.asked("/store/")) == download._TRIES


def test_files_beyond_what_one_request_gives(
    server: Server, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Meta's shards of the 405B, of 51 and 101 GB."""
    monkeypatch.setattr(download, "_PLAIN", 10_000)
    monkeypatch.setattr(download, "_STRETCH", 8_000)
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 10_000)
    files = {"original/mp16/params.json": b"{}", "original/mp16/consolidated.00.pth": BIG}
    files |= {"original/mp8/params.json": b"{}", "original/mp8/consolidated.00.pth": BIG[::-1]}
    server.add("org/405b", files)
    server.most, server.cut_after, server.cuts = 10_000, 5000, 1
    with pytest.raises(InputError, match=r"several models in Meta's layout: original/mp16, original/mp8") as caught:
        pull(hub, "org/405b", tmp_path / "out")
    assert "--only 'original/mp8/*'" in caught.value.mend
    pull(hub, "org/405b", tmp_path / "out", layout="meta", only="original/mp8/*")
    assert (tmp_path / "out" / "consolidated.00.pth").read_bytes() == BIG[::-1]
    ranges = [one.headers["range"] for one in server.asked("/store/")]
    assert ranges == ["bytes=0-7999", "bytes=0-7999", "bytes=8000-15999", "bytes=16000-23999", "bytes=24000-29999"]


def test_a_gguf_in_parts_comes_whole_or_not_at_all(server: Server, hub: Hub, tmp_path: Path) -> None:
    parts = {f"q8/m-Q8_0-0000{n}-of-00003.gguf": b"part %d" % n for n in (1, 2, 3)}
    server.add("org/gguf", parts | {"m-BF16.gguf": b"whole"})
    pull(hub, "org/gguf", tmp_path / "out", layout="gguf", only="*Q8_0*.gguf")
    assert {path.name for path in (tmp_path / "out").glob("*.gguf")} == {name.removeprefix("q8/") for name in parts}
    with pytest.raises(InputError, match="1 of 3 parts"):
        pull(hub, "org/gguf", tmp_path / "part", layout="gguf", only="*00002-of-00003.gguf")


def test_a_stream_without_end_does_not_fill_the_disk(server: Server, hub: Hub, tmp_path: Path) -> None:
    server.add("org/gguf", {"m.gguf": BIG})
    server.surplus = 30
    with pytest.raises(HubError, match="more than the promised 30,000 bytes came"):
        pull(hub, "org/gguf", tmp_path / "out")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.part")) == 0
    server.surplus = 0
    pull(hub, "org/gguf", tmp_path / "out")


def test_a_busy_hub_is_asked_again(server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    server.add("org/tiny", model)
    server.busy = 3
    pull(hub, "org/tiny", tmp_path / "out")
    assert server.busy == 0


def test_a_renamed_repository_is_pulled_by_either_name(
    server: Server, friend: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    server.add("meta/new", model, private=True)
    server.renamed["meta/old"] = "meta/new"
    pull(friend, "meta/old", tmp_path / "out")
    assert read_json(tmp_path / "out" / "herd.json")["pulled"]["repo"] == "meta/new"
    assert pull(friend, "meta/new", tmp_path / "out").found
    assert pull(friend, "meta/old", tmp_path / "out").found


def test_a_mirror_under_a_path(server: Server, model: dict[str, bytes], tmp_path: Path) -> None:
    server.add("org/tiny", model, private=True)
    server.prefix = "/mirror/hf"
    pull(Hub(server.url, token=SECRET), "org/tiny", tmp_path / "out")
    assert all((tmp_path / "out" / n).read_bytes() == data for n, data in model.items() if n != "herd.json")
    with pytest.raises(HubError, match="no such repository"):
        pull(Hub(server.url, token=""), "org/tiny", tmp_path / "none")


def test_a_hub_that_sends_its_own_files_elsewhere_gives_no_token_away(
    server: Server, friend: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    server.add("org/tiny", model, private=True)
    server.strays = True
    pull(friend, "org/tiny", tmp_path / "out")
    far = server.asked("/store/")
    assert len(far) > len([data for data in model.values() if len(data) >= LARGE])
    assert not any("authorization" in one.headers for one in far)


def test_an_old_address_that_the_hub_itself_leads_to_is_asked_for_again(
    server: Server, friend: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    server.add("org/tiny", model)
    server.strays = True
    server.fail["/store/"] = 403
    with pytest.raises(HubError, match="store of large files answers with status 403"):
        pull(friend, "org/tiny", tmp_path / "out")


@pytest.mark.parametrize("revision", ["refs/pr/1", "feature/x", "v1.0"])
def test_revisions_of_every_kind(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path, revision: str
) -> None:
    repo = server.add("org/tiny", model)
    commit = repo.commit(model | {"README.md": b"# other"}, revision)
    assert pull(hub, "org/tiny", tmp_path / "out", revision=revision).commit == commit
    assert (tmp_path / "out" / "README.md").read_bytes() == b"# other"


@pytest.mark.parametrize(
    "answer", [[], {}, {"sha": "0" * 40}, {"id": 3, "sha": "0" * 40}, "text", None, {"id": "a/b", "sha": "main"}]
)
def test_an_answer_of_another_shape_is_no_traceback(
    server: Server, hub: Hub, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    server.add("org/tiny", {"config.json": b"{}"})
    handler = server._servers[0].RequestHandlerClass
    monkeypatch.setattr(handler, "info", lambda self, **_: self._json(answer))
    if answer in ({"sha": "0" * 40}, {"id": 3, "sha": "0" * 40}):
        monkeypatch.setattr(handler, "tree", lambda self, **_: self._json([{"type": "file", "path": "a"}, 7]))
    with pytest.raises(HubError, match=r"makes no sense|named no commit"):
        list_files(hub, "org/tiny")


def test_a_repository_that_changes_between_kill_and_resume(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = server.add("org/tiny", model)
    monkeypatch.setattr(download, "_request", _dies_on(download._request, "model-00002"))
    with pytest.raises(KeyboardInterrupt):
        pull(hub, "org/tiny", tmp_path / "out")
    monkeypatch.undo()
    shards = {name: data[:-1] + bytes([data[-1] ^ 1]) for name, data in model.items() if name.endswith(".safetensors")}
    server.add("org/other", model | shards)  # so that the store has them
    second = repo.commit(model | shards)
    assert pull(hub, "org/tiny", tmp_path / "out").commit == second
    assert all((tmp_path / "out" / name).read_bytes() == data for name, data in shards.items())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _dies_on(real: Any, name: str) -> Any:
    def request(hub: Hub, listing: Any, file: Any, handle: Any) -> None:
        real(hub, listing, file, handle)
        if file.path.startswith(name):
            raise KeyboardInterrupt

    return request


@pytest.mark.slow
def test_killed_at_random_and_started_again(server: Server, hub: Hub, tmp_path: Path) -> None:
    """Six kills at moments of chance; in the end every byte is there, and nothing else."""
    files = {f"m-{n:05d}-of-00003.gguf": random.Random(n).randbytes(12_000_000) for n in (1, 2, 3)}
    server.add("org/large", files)
    code = (
        "import sys; from pathlib import Path; from herd.hub.client import Hub; from herd.hub.pull import pull\n"
        "pull(Hub(sys.argv[1], token=''), 'org/large', Path(sys.argv[2]))"
    )
    chance = random.Random(1)
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", code, server.url, str(tmp_path / "out")])
        try:
            child.wait(chance.uniform(0.3, 1.5))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
    pull(hub, "org/large", tmp_path / "out")
    assert all((tmp_path / "out" / name).read_bytes() == data for name, data in files.items())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_broken_herd_json_of_theirs_is_left_out_and_said(
    server: Server, hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    progress = Noting()
    for name, content in (("a", b"[1,2"), ("b", b"[1,2]"), ("c", b"\xff")):
        server.add(f"org/{name}", model | {"herd.json": content})
        pull(hub, f"org/{name}", tmp_path / name, progress=progress)
        assert set(read_json(tmp_path / name / "herd.json")) == {"pulled"}
    assert [note.partition(":")[0] for note in progress.notes] == ["herd.json of the repository is left out"] * 2


@pytest.mark.parametrize("token", ["hf_bädtoken", "two words", "hf_line\nbreak"])
def test_what_is_no_token_is_never_sent(server: Server, token: str) -> None:
    with pytest.raises(InputError, match="characters that no token has") as caught:
        list_files(Hub(server.url, token=token), "org/tiny")
    assert token not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    "name", ["tiny", "a/b/c", "org/..", "../m", "org/-x", "org/a b", "org/a--b", "örg/m", "/m", "o/"]
)
def test_names_of_repositories(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", name, "--out", "/nowhere"]) == 3
    assert "no name of a repository" in capsys.readouterr().err
    assert is_repo_name("meta-llama/Llama-3.1-8B")


def test_a_wish_of_too_many_requests_says_how_long(server: Server, hub: Hub) -> None:
    server.add("org/tiny", {})
    server.fail["/api/"] = 429
    with pytest.raises(HubError, match="too many requests") as caught:
        list_files(hub, "org/tiny")
    assert "wait 7 seconds" in caught.value.mend
