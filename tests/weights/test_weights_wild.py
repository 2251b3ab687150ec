"""Folders as adopters meet them: a layout of Llama 3.x is read as transformers reads it, or refused with a way out."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fp8_folders import close, logits_of, logits_of_transformers
from herd.errors import ArtifactError, FormatError
from herd.llama.config import LlamaConfig, RopeScaling
from herd.weights.build import load_any
from herd.weights.convert import convert
from herd.weights.hf import load_config, save_model
from herd.weights.hf_files import TORCH_INDEX, TORCH_SINGLE
from herd.weights.registry import detect, open_model
from herd.weights.tensors import INDEX, SINGLE
from stored_models import edit_config, make_model, same, tensors

CONFIG = LlamaConfig(64, 32, 3, 4, 2, 48, max_seq_len=512)
TIED = LlamaConfig(
    64, 32, 3, 4, 2, 48, max_seq_len=512, rope_scaling=RopeScaling(32.0), tie_embeddings=True
)  # as Llama 3.2


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "m", make_model(CONFIG), CONFIG, herd={})
    return tmp_path / "m"


# files of weights


@pytest.mark.parametrize("shards", [1, 3])
def test_pickles_of_older_folders_are_read_safely(folder, tmp_path, shards):
    state = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = list(state)
    parts = {f"pytorch_model-{n + 1:05d}-of-{shards:05d}.bin": names[n::shards] for n in range(shards)}
    for file, held in parts.items():
        torch.save({name: state[name] for name in held}, folder / (TORCH_SINGLE if shards == 1 else file))
    if shards > 1:
        weight_map = {name: file for file, held in parts.items() for name in held}
        (folder / TORCH_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    model = open_model(folder)
    assert [form.name for form in detect(folder)] == ["hf"]
    assert "pickles" in model.notes[0]
    assert same(tensors(folder), state)
    convert(folder, tmp_path / "safe", to="hf")
    assert same(load_file(tmp_path / "safe" / SINGLE), state)
    assert open_model(tmp_path / "safe").notes == ()
    assert close(logits_of(folder), logits_of_transformers(folder))


def test_a_pickle_with_code_is_refused_and_not_run(folder, tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (folder / SINGLE).unlink()
    torch.save({"model.norm.weight": Harm()}, folder / TORCH_SINGLE)
    with pytest.raises(FormatError, match="nothing of it was run"):
        open_model(folder)
    assert not (tmp_path / "ran").exists()


def test_shards_without_their_index(tmp_path):
    model = make_model(CONFIG)
    save_model(tmp_path / "m", model, CONFIG, herd={}, max_shard_bytes=9_000)
    whole = tensors(tmp_path / "m")
    (tmp_path / "m" / INDEX).unlink()
    assert [form.name for form in detect(tmp_path / "m")] == ["hf"]
    assert same(tensors(tmp_path / "m"), whole)
    assert "is lost" in open_model(tmp_path / "m").notes[0]
    lost = sorted((tmp_path / "m").glob("model-*"))[1]
    lost.unlink()
    with pytest.raises(ArtifactError, match="missing") as caught:
        open_model(tmp_path / "m")
    assert lost.name in caught.value.where


# config.json


@pytest.mark.parametrize("output", ["absent", "present"])
def test_tied_embeddings_as_in_llama_32(tmp_path, output):
    model = make_model(TIED)
    save_model(tmp_path / "m", model, TIED, herd={})
    state = load_file(tmp_path / "m" / SINGLE)
    if output == "present":
        save_file(state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()}, tmp_path / "m" / SINGLE)
    assert load_config(tmp_path / "m") == TIED
    assert same(tensors(tmp_path / "m"), state)
    assert close(logits_of(tmp_path / "m"), logits_of_transformers(tmp_path / "m"))


SCALING = {"rope_type": "llama3"} | vars(CONFIG.rope_scaling)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "rope_theta": ...,
            "rope_scaling": ...,
            "rope_parameters": {"rope_theta": 5e5, **SCALING},
            "dtype": "bfloat16",
        },
        {"rope_scaling": {"type": "llama3"} | {k: v for k, v in SCALING.items() if k != "rope_type"}},
        {"torch_dtype": ..., "dtype": "bfloat16", "transformers_version": "5.1.0"},
        {"eos_token_id": [61, 62], "pad_token_id": None, "pretraining_tp": 1, "head_dim": 8},
        {"head_dim": ..., "attention_bias": ..., "mlp_bias": ..., "quantization_config": None},
    ],
    ids=["transformers 5", "type", "dtype", "list of stops", "of 2024"],
)
def test_spellings_of_config_json(folder, changes):
    whole = tensors(folder)
    edit_config(folder, **changes)
    assert load_config(folder) == CONFIG
    assert same(tensors(folder), whole)
    assert close(logits_of(folder), logits_of_transformers(folder))


def test_tables_of_angles_are_passed_over(folder):
    whole = tensors(folder)
    extra = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(3)}
    save_file(whole | extra, folder / SINGLE)
    assert same(tensors(folder), whole)


@pytest.mark.parametrize("key", ["attention_bias", "mlp_bias"])
def test_biases_are_refused_even_where_the_config_forgets_them(folder, key):
    leaf = "self_attn.q_proj" if key == "attention_bias" else "mlp.up_proj"
    name = f"model.layers.0.{leaf}.bias"
    save_file(tensors(folder) | {name: torch.zeros(32 if "attn" in leaf else 48)}, folder / SINGLE)
    with pytest.raises(ArtifactError, match=rf"unexpected: {name}"):
        open_model(folder)
    edit_config(folder, **{key: True})
    with pytest.raises(ArtifactError, match=key):
        open_model(folder)


def test_a_model_of_meta_beside_one_of_hugging_face(folder, tmp_path):
    """As on the hub: original/ inside the folder, and links as its cache has them."""
    convert(folder, folder / "original", to="meta")
    assert same(tensors(folder), tensors(folder / "original"))
    shutil.move(folder / SINGLE, tmp_path / "blob")
    (folder / SINGLE).symlink_to(tmp_path / "blob")
    with pytest.raises(FormatError, match="a link leads out"):
        load_any(folder)


def test_files_without_the_right_to_read_them(folder, tmp_path, monkeypatch):
    """The root of this machine may read everything, so the refusals of the system are played."""
    (folder / "LICENSE").write_text("")
    convert(folder, tmp_path / "meta", to="meta")

    def denied(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.access", lambda *arguments: False)
    with pytest.raises(ArtifactError, match="no right to it") as caught:
        convert(folder, tmp_path / "out", to="hf")
    assert caught.value.where == str(folder / "LICENSE")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("zipfile.ZipFile", denied)
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_model(tmp_path / "meta")
    monkeypatch.setattr("pathlib.Path.is_file", denied)
    with pytest.raises(ArtifactError, match="Permission denied"):
        open_model(folder)
