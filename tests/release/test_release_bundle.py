"""The card says what is recorded, the bundle holds a model and nothing of this machine, and the hub gets all of it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hub_fixtures import SECRET
from hub_models import tiny
from hub_server import LARGE, Server
from release_run import WHERE, make_run

from herd.cli import main
from herd.errors import ArtifactError, FormatError, HubError, InputError, SettingError
from herd.files import write_json
from herd.hub.client import Hub
from herd.hub.pull import pull
from herd.hub.upload import publish
from herd.quantize.fp8 import quantize_model, save_fp8
from herd.release.bundle import Options, make_bundle
from herd.release.scores import read_scores
from herd.text import Tokenizer
from herd.weights.hf import load_model

FREE = Options(licence="apache-2.0")


@pytest.fixture(autouse=True)
def _plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads by the LFS protocol, which the server of the tests speaks; Xet's is inside a binary."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_run(tmp_path / "stages")


def header_of(card: str) -> dict[str, Any]:
    return huggingface_hub.ModelCard(card).data.to_dict()


def test_the_card_tells_the_making(model: Path) -> None:
    card = make_bundle(model, "me/nano", FREE).card
    head = header_of(card)
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == (
        "apache-2.0",
        "transformers",
        "text-generation",
    )
    assert head["language"] == ["en", "de", "fr", "it", "pt", "hi", "es", "th"]
    assert "base_model" not in head
    results = huggingface_hub.ModelCard(card).data.eval_results
    assert results is not None
    assert {(one.dataset_name, one.metric_value) for one in results} == {
        ("paddock 1: math", 0.6667),
        ("paddock 1: code", 0.6667),
        ("paddock 1: average", 0.6667),
    }
    assert re.search(r"\| math \| exact match \| 66\.7% \| 4\d\.\d% to \d\d\.\d% \| 30 \|", card)
    assert "Documents by source: paddock 1,200." in card
    assert "| flagship-base | `0123456789ab` | 0.2.0 | 3,330 s | loss 1.25, tokens 1,000 |" in card
    assert "Built with Llama" not in card
    assert "Not quantised." in card


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({}, "Estimated, not measured: 100 Wh, from 1.0 hours of recorded work at 100 W (herd's assumption"),
        ({"watts": 700.0}, "Estimated, not measured: 700 Wh, from 1.0 hours of recorded work at 700 W (stated by"),
        ({"kwh": 12.0, "grams": 400.0}, "Measured: 12 kWh, as stated by whoever published this model. At 400 g"),
    ],
)
def test_energy_says_how_it_is_known(model: Path, stated: dict[str, float], words: str) -> None:
    card = make_bundle(model, "me/nano", Options(licence="mit", **stated)).card
    assert words in card
    assert ("4.8 kg of CO2" in card) == ("grams" in stated)


def test_energy_of_what_it_was_made_from_is_told_apart(tmp_path: Path) -> None:
    base = tiny(tmp_path / "b", herd={"pulled": {"repo": "meta-llama/Llama-3.1-8B", "licence": "llama3.1"}})
    (base / "LICENSE").write_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT")
    card = make_bundle(base, "me/Llama-b").card
    assert "no time is recorded" in card
    assert "1.46M GPU hours" in card
    assert header_of(card)["base_model"] == "meta-llama/Llama-3.1-8B"


def test_the_time_of_a_stage_and_of_the_model_in_it_counts_once(tmp_path: Path) -> None:
    inside = tiny(tmp_path / "adopt-sft-0" / "model", herd={"seconds": 3500.0})
    write_json(inside.parent / "herd.json", {"stage": "adopt-sft", "seconds": 3600.0, "inputs": {}})
    card = make_bundle(inside, "me/nano", Options(licence="mit", llama="none")).card
    assert "100 Wh, from 1.0 hours" in card


def test_fp8_is_told(model: Path, tmp_path: Path) -> None:
    network = load_model(model)
    quantize_model(network)
    save_fp8(tmp_path / "fp8", network, tokenizer=Tokenizer.load(model), herd={"from": str(model)})
    bundle = make_bundle(tmp_path / "fp8", "me/nano-fp8", FREE)
    assert "float8 e4m3 with one scale an output row" in bundle.card
    assert "bounded at 1200" in bundle.card
    assert "`model.layers.*.self_attn.q_proj`" in bundle.card
    assert "fp8" in header_of(bundle.card)["tags"]
    record = json.loads(bytes(bundle.files["herd.json"]))
    assert record["fp8"]["activation_bound"] == 1200.0  # readers of FP8 folders need it
    assert [step.get("stage") for step in record["released"]["steps"]][-2:] == ["flagship-base", None]


def test_nothing_of_this_machine_goes_out(model: Path, tmp_path: Path) -> None:
    for name in ("optimizer.pt", ".env", "notes.txt", "pytorch_model.bin"):
        (model / name).write_text("private")
    (model / "README.md").write_text("my own notes")
    bundle = make_bundle(model, "me/nano", FREE)
    assert bundle.left_aside == (".env", "notes.txt", "optimizer.pt", "pytorch_model.bin")
    assert set(bundle.files) == {
        *("README.md", "herd.json", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
        *("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    }
    sent = b"".join(one if isinstance(one, bytes) else b"" for one in bundle.files.values()).decode()
    assert WHERE not in sent
    assert str(tmp_path) not in sent
    assert '"user": "texts"' in sent
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="a link out of the folder"):
        make_bundle(model, "me/nano", FREE)


def test_an_adapter(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "meta-llama/Llama-3.1-8B"})
    (folder / "adapter_model.safetensors").write_bytes(b"values")
    (folder / "LICENSE").write_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT")
    bundle = make_bundle(folder, "me/Llama-adapter")
    head = header_of(bundle.card)
    assert (head["library_name"], head["base_model_relation"]) == ("peft", "adapter")
    assert head["base_model"] == "meta-llama/Llama-3.1-8B"
    assert {"adapter_model.safetensors", "Notice.txt", "LICENSE"} <= set(bundle.files)


def test_a_strangers_record_leads_nowhere_on_this_machine(model: Path, tmp_path: Path) -> None:
    theirs = {"from": str(model), "inputs": {"x": model.name}, "pulled": {"repo": "org/x", "licence": "mit"}}
    folder = tiny(model.parent / "pulled", herd=theirs)
    bundle = make_bundle(folder, "me/x", FREE)
    assert "flagship-base" not in bytes(bundle.files["herd.json"]).decode().replace(model.name, "")
    assert "weights of `org/x`" in bundle.card


def test_what_is_missing_is_asked_for(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="under which licence"):
        make_bundle(model, "me/nano")
    with pytest.raises(ArtifactError, match="no such folder"):
        make_bundle(tmp_path / "none", "me/nano", FREE)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FormatError):
        make_bundle(model, "me/nano", FREE)
    weights.unlink()
    with pytest.raises(InputError, match="no model"):
        make_bundle(model, "me/nano", FREE)


def test_scores_of_the_harness(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    told = {"alias": "gsm8k", "exact_match,strict": 0.5, "exact_match_stderr,strict": 0.01, "acc,none": 0.25}
    write_json(path, {"results": {"gsm8k": told}, "n-samples": {"gsm8k": {"effective": 1319}}})
    card = make_bundle(model, "me/nano", Options(licence="mit", scores=path)).card
    assert "| gsm8k | exact_match (strict) | 50.0% | 48.0% to 52.0% | 1319 |" in card
    assert "| gsm8k | acc | 25.0% | not known | 1319 |" in card
    for content in ({"results": {}}, {"a": 1}, []):
        write_json(path, content)
        with pytest.raises(FormatError):
            read_scores(path)
    with pytest.raises(ArtifactError, match="no such results file"):
        read_scores(tmp_path / "none.json")


def test_a_folder_of_scores_is_told_by_its_own_results(model: Path, tmp_path: Path) -> None:
    """Below the suite's results lie the probe's. Where there are none above, two below are one too many."""
    scores = model.parent / "scores-flagship-base-0123456789ab"
    own = read_scores(scores)
    (results,) = scores.glob("results*.json")
    for name in ("probe", "other"):
        (scores / name).mkdir()
        shutil.copy(results, scores / name / results.name)
    assert read_scores(scores) == own
    results.unlink()
    with pytest.raises(ArtifactError, match="2 results files"):
        read_scores(scores)


def test_published_and_pulled_again_it_is_the_same_model(
    server: Server, friend: Hub, model: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(model, "friend/nano", FREE)
    done = publish(friend, "friend/nano", bundle.files, message="one", private=True)
    repo = server.repos["model", "friend/nano"]
    assert repo.private
    assert len(repo.commits) == 2  # the hub's own first one, and ours: all or nothing
    assert done.commit == repo.refs["main"]
    large = [name for name, size in bundle.sizes().items() if size >= LARGE]
    assert len(server.asked("/put/", "PUT")) == len(server.asked("/verify/", "POST")) == len(large) > 2
    pull(friend, "friend/nano", tmp_path / "back")
    for name, tensor in load_model(model).state_dict().items():
        assert torch.equal(tensor, load_model(tmp_path / "back").state_dict()[name])
    again = make_bundle(tmp_path / "back", "friend/again", Options(licence="mit", llama="none"))
    assert '"flagship-base"' in bytes(again.files["herd.json"]).decode()


def test_stale_weights_go_and_other_files_stay(server: Server, friend: Hub, model: Path) -> None:
    old = {"model-00001-of-00002.safetensors": b"a" * 9, "model.safetensors.index.json": b"{}", "picture.png": b"p"}
    server.add("friend/nano", old)
    files = make_bundle(model, "friend/nano", FREE).files
    done = publish(friend, "friend/nano", files, message="two")
    assert done.removed == ("model-00001-of-00002.safetensors", "model.safetensors.index.json")
    repo = server.repos["model", "friend/nano"]
    assert set(repo.commits[repo.refs["main"]]) == {*files, "picture.png"}


def test_refused_uploads(server: Server, hub: Hub, friend: Hub, model: Path) -> None:
    files = make_bundle(model, "friend/nano", FREE).files
    with pytest.raises(HubError, match="nobody is logged in"):
        publish(hub, "friend/nano", files, message="x")
    with pytest.raises(HubError, match=r"forbids it.*rights"):
        publish(Hub(server.url, token="hf_" + "other" * 4), "friend/nano", files, message="x")
    with pytest.raises(HubError, match="offline"):
        publish(Hub(server.url, offline=True, token="t"), "friend/nano", files, message="x")
    server.card_error = '"license" must be one of apache-2.0, mit'
    with pytest.raises(HubError, match=r"refuses the model card.*must be one of"):
        publish(friend, "friend/nano", files, message="x")
    assert len(server.repos["model", "friend/nano"].commits) == 1


def test_the_command(
    server: Server, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    command = ["release", str(model), "friend/nano", "--licence", "apache-2.0"]
    assert main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "# nano" in told
    assert "model.safetensors" in told
    assert "nothing was sent" in told
    assert "your own texts went into it (texts)" in told
    assert server.requests == []
    assert main(command) == 0
    assert f"published {server.url}/friend/nano at" in capsys.readouterr().out
    assert main(["release", str(model), "friend/nano", "--llama", "weights"]) == 2
    assert "must begin with 'Llama'" in capsys.readouterr().err
    assert main(["release", str(model), "nano"]) == 3


def test_a_gguf_of_which_only_a_later_part_is_here(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    writer = gguf.GGUFWriter(tmp_path / "m-00002-of-00003.gguf", "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ArtifactError, match="cut into 3 files, and this is not the first"):
        make_bundle(tmp_path, "me/nano", Options(licence="mit", llama="none"))


def test_the_card_survives_what_it_quotes(model: Path, tmp_path: Path) -> None:
    about, scores = tmp_path / "about.md", tmp_path / "results.json"
    write_json(scores, {"results": {"a|b\n<script>": {"acc,none": 0.5}}})
    about.write_text("A *small* model.")
    card = make_bundle(model, "me/nano", Options(licence="mit", about=about, scores=scores)).card
    assert "# nano\n\nA *small* model." in card
    assert r"| a\|b &lt;script> | acc | 50.0% | not known |  |" in card
    assert "- Texts of the publisher's own, not published here: `texts`." in card
    assert "46.82 kB" in card
    for wrong, words in ((b"---\nlicense: mit\n---\n", "header of its own"), (b"\xff", "cannot be read as text")):
        about.write_bytes(wrong)
        with pytest.raises(InputError, match=words):
            make_bundle(model, "me/nano", Options(licence="mit", about=about))
    with pytest.raises(InputError, match="cannot be read"):
        make_bundle(model, "me/nano", Options(licence="mit", about=tmp_path / "none"))
    with pytest.raises(SettingError, match="no code of a language"):
        make_bundle(model, "me/nano", Options(licence="mit", languages=("english",)))
    with pytest.raises(SettingError, match="0 or more"):
        make_bundle(model, "me/nano", Options(licence="mit", kwh=float("nan")))
