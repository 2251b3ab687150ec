"""Every refusal of the hub says what to do, and no message holds the token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import SECRET, STRANGERS, Server

from herd.cli import main
from herd.errors import HubError, InputError
from herd.hub.client import Hub
from herd.hub.listing import is_safe, list_files
from herd.hub.pull import pull


def test_gated_repositories(server: Server, hub: Hub, friend: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    server.add("meta/gated", model, gated=True)
    with pytest.raises(HubError, match="nobody is logged in") as caught:
        pull(hub, "meta/gated", tmp_path / "out")
    assert f"{server.url}/meta/gated" in str(caught.value)
    assert "hf auth login" in caught.value.mend
    stranger = Hub(server.url, token=STRANGERS)
    with pytest.raises(HubError, match="has not been granted") as caught:
        pull(stranger, "meta/gated", tmp_path / "out")
    assert "accept its conditions" in caught.value.mend
    assert stranger.secret() not in str(caught.value)
    pull(friend, "meta/gated", tmp_path / "out")


def test_the_token_goes_to_the_hub_and_to_nobody_else(
    server: Server, friend: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    server.add("me/private", model, private=True)
    pull(friend, "me/private", tmp_path / "out")
    sent = {(one.path.startswith("/store/"), "authorization" in one.headers) for one in server.requests}
    assert sent == {(False, True), (True, False)}
    assert SECRET not in "".join(path.read_text("latin-1") for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET not in repr(friend)


@pytest.mark.parametrize(
    ("repo", "revision", "token", "words"),
    [
        ("org/none", "main", "", "no such repository"),
        ("org/none", "main", SECRET, "no such repository"),
        ("org/tiny", "v9", "", "no revision 'v9'"),
        ("org/tiny", "main", "hf_wrongwrong", "does not accept this token"),
        ("org//tiny", "main", "", "no name of a repository"),
    ],
)
def test_refusals(server: Server, model: dict[str, bytes], repo: str, revision: str, token: str, words: str) -> None:
    server.add("org/tiny", model)
    with pytest.raises((HubError, InputError), match=words) as caught:
        list_files(Hub(server.url, token=token), repo, revision=revision)
    assert caught.value.mend
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(("status", "words"), [(403, "forbids"), (429, "too many requests"), (400, "status 400")])
def test_statuses(server: Server, hub: Hub, status: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.add("org/tiny", {})
    server.fail["/api/"] = status
    with pytest.raises(HubError, match=words):
        list_files(hub, "org/tiny")


def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    gone = Hub("http://user:pass@127.0.0.1:9", token=SECRET)
    with pytest.raises(HubError, match="cannot be reached") as caught:
        list_files(gone, "org/tiny")
    assert "pass" not in str(caught.value).replace("password", "")
    assert SECRET not in str(caught.value)


def test_messages_are_cleaned() -> None:
    hub = Hub("https://me:pw@mirror.example", token=SECRET)
    text = hub.clean(f"GET https://me:pw@mirror.example/x?sig=abc {SECRET} hf_ANOTHERtoken123 failed")
    assert text == "GET https://***@mirror.example/x *** *** failed"
    assert hub.page("a/b") == "https://mirror.example/a/b"


@pytest.mark.parametrize("path", ["..", "a//b", "/a", "a/", "a/./b", "a\\b", "a:b", " a", "a\0b", "x" * 300])
def test_unsafe_names(path: str) -> None:
    assert not is_safe(path)
    assert is_safe("data/deu_Latn/train/000_00000.parquet")


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert Hub.from_environment() == Hub("https://huggingface.co")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert Hub.from_environment() == Hub("https://mirror.example", offline=True)
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    with pytest.raises(InputError, match="no address of a hub"):
        Hub.from_environment()


def test_the_command(
    server: Server,
    model: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.add("org/tiny", model)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["pull", "org/tiny"]) == 0
    told = capsys.readouterr().out
    assert "next     herd chat models/tiny" in told
    assert "llama3.1" in told
    assert main(["pull", "tiny"]) == 3
    assert main(["pull", "org/none", "--out", "none"]) == 11
    told += "".join(capsys.readouterr())
    assert SECRET not in told


def test_a_pull_in_a_process_of_its_own(server: Server, model: dict[str, bytes], tmp_path: Path) -> None:
    """As a user runs it: the mirror and offline mode by the environment alone."""
    server.add("org/tiny", model)
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": SECRET}
    command = [sys.executable, "-m", "herd.cli", "pull", "org/tiny", "--out", str(tmp_path / "out")]
    code = "import sys; from herd.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *command[3:]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "was here already, whole" in done.stdout
    command[-1] = str(tmp_path / "elsewhere")
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 11
    assert "offline" in done.stderr
