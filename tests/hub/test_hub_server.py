"""The hub of the tests is like the real one: the library's downloads and uploads, and transformers, work with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hub_fixtures import SECRET
from hub_models import CARD, files_of, tiny
from hub_server import Server
from hub_uploads import faults_of
from huggingface_hub import errors

from herd.hub.client import Hub
from herd.hub.pull import pull
from herd.weights.hf import load_model


@pytest.fixture(autouse=True)
def _plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def test_the_librarys_own_download(server: Server, model: dict[str, bytes], tmp_path: Path) -> None:
    server.add("org/new", model, private=True)
    server.renamed["org/old"] = "org/new"
    for name, cache in (("org/new", "a"), ("org/old", "b")):
        kept = huggingface_hub.snapshot_download(
            name, cache_dir=tmp_path / cache, endpoint=server.url, token=SECRET, etag_timeout=20
        )
        assert files_of(Path(kept)) == model
    assert huggingface_hub.HfApi(server.url, token=SECRET).model_info("org/new").private


@pytest.mark.parametrize(
    ("name", "token", "error"),
    [
        ("org/none", False, errors.RepositoryNotFoundError),
        ("org/gated", False, errors.GatedRepoError),
        ("org/gated", "hf_" + "other" * 4, errors.GatedRepoError),
        ("org/secret", "hf_" + "other" * 4, errors.RepositoryNotFoundError),
    ],
)
def test_the_librarys_own_errors(server: Server, tmp_path: Path, name: str, token: Any, error: type[Exception]) -> None:
    server.add("org/gated", {"config.json": b"{}"}, gated=True)
    server.add("org/secret", {"config.json": b"{}"}, private=True)
    api = huggingface_hub.HfApi(server.url, token=token)
    with pytest.raises(error):
        api.hf_hub_download(name, "config.json", cache_dir=tmp_path, etag_timeout=20)
    server.add("org/open", {"config.json": b"{}"})
    with pytest.raises(errors.EntryNotFoundError):
        huggingface_hub.HfApi(server.url, token=False).hf_hub_download("org/open", "x", cache_dir=tmp_path)


def test_the_librarys_own_upload_is_pulled(server: Server, friend: Hub, tmp_path: Path) -> None:
    folder = tiny(tmp_path / "mine")
    (folder / "README.md").write_bytes(CARD)
    api = huggingface_hub.HfApi(server.url, token=SECRET)
    api.create_repo("friend/mine", private=True)
    api.create_branch("friend/mine", branch="dev")
    done = api.upload_folder(repo_id="friend/mine", folder_path=folder, revision="dev")
    assert pull(friend, "friend/mine", tmp_path / "back", revision="dev").commit == done.oid
    assert load_model(tmp_path / "back").state_dict().keys()


def test_transformers_loads_from_it(
    server: Server, model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    server.add("me/model", model)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    kept: dict[str, Any] = {"cache_dir": tmp_path / "cache", "token": False}
    theirs = transformers.AutoModelForCausalLM.from_pretrained("me/model", dtype=torch.float32, **kept)
    words = transformers.AutoTokenizer.from_pretrained("me/model", **kept)
    pull(Hub(server.url, token=""), "me/model", tmp_path / "out")
    ours = load_model(tmp_path / "out")
    tokens = torch.tensor([words("The shepherd counts.")["input_ids"]])
    with torch.no_grad():
        assert torch.allclose(theirs(tokens).logits, ours.logits(ours(tokens)), atol=1e-5)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("license: my-own", "must be one of"),
        ("license: other\nlicense_name: My own", "license_name"),
        ("language: [english]", "language"),
        ("base_model: /opt/me/model", "base_model"),
        ("base_model_relation: child", "relation"),
        ("model-index: [{name: a, results: [{task: {}}]}]", "model-index"),
        ("a: [", "YAML"),
    ],
)
def test_cards_are_judged(header: str, words: str) -> None:
    assert words in str(faults_of(f"---\n{header}\n---\n# A\n"))
    assert faults_of("# no header") == faults_of(CARD.decode()) == []
