"""What goes out can be used by others: no place of this machine, a base they can load, a licence they can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub_fixtures import SECRET
from hub_models import tiny
from hub_server import Server
from hub_uploads import faults_of
from release_run import make_run

from herd.errors import ArtifactError, HubError, InputError, SettingError
from herd.files import read_json, write_json
from herd.hub.client import Hub
from herd.hub.pull import pull
from herd.hub.upload import publish
from herd.release.bundle import Options, make_bundle
from herd.release.licences import KNOWN
from herd.release.portable import anonymous
from herd.weights.build import load_any
from herd.weights.convert import convert
from herd.weights.formats import WriteOptions

FREE = Options(licence="apache-2.0", llama="none")


@pytest.fixture(autouse=True)
def _plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def adapter_of(folder: Path, base: str) -> Path:
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": base, "r": 8})
    (folder / "adapter_model.safetensors").write_bytes(b"values")
    write_json(folder / "herd.json", {"adopted_from": base})
    return folder


def test_an_adapter_names_its_base_as_the_hub_does(tmp_path: Path) -> None:
    base = tiny(tmp_path / "models" / "base", herd={"pulled": {"repo": "org/base", "licence": "mit"}})
    adapter = adapter_of(tmp_path / "adapter", str(base))
    bundle = make_bundle(adapter, "me/adapter", Options(licence="mit"))
    sent = json.loads(bytes(bundle.files["adapter_config.json"]))
    assert sent == {"base_model_name_or_path": "org/base", "r": 8}
    assert "base_model: org/base" in bundle.card
    assert "base_model_relation: adapter" in bundle.card
    assert faults_of(bundle.card) == []
    assert str(tmp_path) not in bundle.card


def test_an_adapter_on_a_model_of_this_machine_asks_for_its_name(tmp_path: Path) -> None:
    base = make_run(tmp_path / "stages")
    adapter = adapter_of(tmp_path / "adapter", str(base))
    with pytest.raises(SettingError, match="a place on this machine") as caught:
        make_bundle(adapter, "me/adapter", FREE)
    assert "--base OWNER/NAME" in caught.value.mend
    bundle = make_bundle(adapter, "me/adapter", Options(licence="mit", base="me/nano"))
    assert b'"me/nano"' in bytes(bundle.files["adapter_config.json"])
    assert "base_model: me/nano" in bundle.card


def test_places_in_the_libraries_files_stay_here(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "model")
    for name, key in (("config.json", "_name_or_path"), ("tokenizer_config.json", "name_or_path")):
        write_json(folder / name, {**read_json(folder / name), key: "/opt/me/secret/model"})
    bundle = make_bundle(folder, "me/model", FREE)
    for name in ("config.json", "tokenizer_config.json"):
        theirs = json.loads(bytes(bundle.files[name]))
        assert "secret" not in json.dumps(theirs)
        assert set(read_json(folder / name)) - set(theirs) == {
            "_name_or_path" if name == "config.json" else "name_or_path"
        }
    assert bundle.files["tokenizer.json"] == folder / "tokenizer.json"


def test_paths_and_passwords_inside_of_texts() -> None:
    told = {"a": "read /opt/me/x/talks.jsonl twice", "b": ["file:///srv/data/b.txt", "http://me:pw@host/v1"]}
    told |= {"c": "D:\\data\\me\\d.txt", "d": "a/b of 3/4", "e": "https://host/a/b", "/opt/me/key": 1}
    assert anonymous(told) == {
        "a": "read talks.jsonl twice",
        "b": ["b.txt", "http://host/v1"],
        "c": "d.txt",
        "d": "a/b of 3/4",
        "e": "https://host/a/b",
        "key": 1,
    }


def test_licences_that_the_hub_does_not_know(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "model")
    text = tmp_path / "TERMS.txt"
    text.write_text("Do no harm.")
    bundle = make_bundle(folder, "me/model", Options(licence="no-harm-1.0", licence_file=text, llama="none"))
    assert "license: other\nlicense_name: no-harm-1.0\nlicense_link: LICENSE\n" in bundle.card
    assert bundle.files["LICENSE"] == text
    assert faults_of(bundle.card) == []
    for licence, words in (("no-harm-1.0", "knows no licence"), ("other", "names no"), ("Apache 2.0", "names no")):
        with pytest.raises(SettingError, match=words):
            make_bundle(folder, "me/model", Options(licence=licence, llama="none"))
    with pytest.raises(SettingError, match=r"nothing of Meta's is recorded"):
        make_bundle(folder, "me/model", Options(licence="llama3.1", llama="none"))
    assert {"mit", "llama3.1"} <= KNOWN


def test_the_licence_of_a_foreign_base_is_pointed_out(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "theirs", herd={"pulled": {"repo": "org/x", "licence": "cc-by-nc-4.0"}})
    assert make_bundle(folder, "me/x", Options(licence="mit")).notes == (
        "org/x went into it, under cc-by-nc-4.0: see that your licence may be given",
    )


def test_what_is_to_be_private_is_not_put_where_all_can_read(server: Server, friend: Hub, tmp_path: Path) -> None:
    repo = server.add("friend/open", {"README.md": b"mine"})
    files = make_bundle(tiny(tmp_path / "model"), "friend/open", FREE).files
    with pytest.raises(HubError, match="everybody can read it"):
        publish(friend, "friend/open", files, message="x", private=True)
    assert len(repo.commits) == 1
    assert server.asked("/put/", "PUT") == []


def test_a_branch_is_made(server: Server, friend: Hub, tmp_path: Path) -> None:
    files = make_bundle(tiny(tmp_path / "model"), "friend/new", FREE).files
    for _ in range(2):
        publish(friend, "friend/new", files, message="x", revision="next")
    repo = server.repos["model", "friend/new"]
    assert set(repo.commits[repo.refs["main"]]) == {".gitattributes"}
    assert set(files) < set(repo.commits[repo.refs["next"]])


def test_an_upload_that_breaks_changes_nothing_and_goes_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    files = make_bundle(tiny(tmp_path / "model"), "friend/new", FREE).files
    friend = Hub(server.url, token=SECRET)
    server.fail["/commit/"] = 500
    with pytest.raises(HubError, match="status 500"):
        publish(friend, "friend/new", files, message="x")
    repo = server.repos["model", "friend/new"]
    assert set(repo.commits[repo.refs["main"]]) == {".gitattributes"}
    server.fail.clear()
    before = len(server.asked("/put/", "PUT"))
    publish(friend, "friend/new", files, message="x")
    assert len(server.asked("/put/", "PUT")) == before > 0  # large files are not sent twice


def test_gguf_files_are_published_and_pulled(server: Server, friend: Hub, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    base = tiny(tmp_path / "base", herd={"pulled": {"repo": "meta-llama/Llama-3.1-8B", "licence": "llama3.1"}})
    (base / "LICENSE").write_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT")
    folder = tmp_path / "gguf"
    folder.mkdir()
    for kind in ("bf16", "q8_0"):
        convert(base, folder / f"m-{kind}.gguf", to="gguf", options=WriteOptions(dtype=kind))
    with pytest.raises(ArtifactError, match="not recorded"):
        make_bundle(folder, "friend/Llama-GGUF")
    bundle = make_bundle(folder, "friend/Llama-GGUF", Options(made_from=base))
    assert set(bundle.files) == {*("m-bf16.gguf", "m-q8_0.gguf", "README.md", "herd.json", "LICENSE", "Notice.txt")}
    assert "library_name: gguf" in bundle.card
    assert "base_model_relation: quantized" in bundle.card
    assert "`m-q8_0.gguf`" in bundle.card
    assert faults_of(bundle.card) == []
    publish(friend, "friend/Llama-GGUF", bundle.files, message="x")
    pull(friend, "friend/Llama-GGUF", tmp_path / "back", layout="gguf", only="*bf16.gguf")
    back, first = load_any(tmp_path / "back").state_dict(), load_any(base).state_dict()
    assert all(torch.equal(tensor, back[name]) for name, tensor in first.items())
    convert(tiny(tmp_path / "wide", dim=32), folder / "other.gguf", to="gguf")
    with pytest.raises(InputError, match="not of one model"):
        make_bundle(folder, "friend/Llama-GGUF", Options(made_from=base))
