"""Model files made to harm: absurd sizes, numbers that are none, tables of tensors that are no tables."""

import json
import random
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from herd.errors import ArtifactError, FormatError, HerdError, SettingError
from herd.llama.config import LlamaConfig, RopeScaling
from herd.weights.convert import convert
from herd.weights.gguf_tokenizer import GgufTokenizer
from herd.weights.hf import save_model
from herd.weights.pth import read_pth
from herd.weights.registry import open_model
from stored_models import edit, make_model, same, tensors

CONFIG = LlamaConfig(64, 32, 3, 4, 2, 48)
INFINITY, NAN = float("inf"), float("nan")
SCALING = {"rope_type": "llama3"} | vars(CONFIG.rope_scaling)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    save_model(place / "hf", make_model(CONFIG), CONFIG, herd={})
    convert(place / "hf", place / "meta", to="meta")
    return place


@pytest.fixture
def hf(made, tmp_path):
    return shutil.copytree(made / "hf", tmp_path / "hf")


@pytest.fixture
def meta(made, tmp_path):
    return shutil.copytree(made / "meta", tmp_path / "meta")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"num_hidden_layers": 10**9}, "n_layers"),
        ({"vocab_size": 2**62}, "vocab_size"),
        ({"hidden_size": 2**40, "head_dim": ...}, "dim"),
        ({"max_position_embeddings": 10**40}, "max_seq_len"),
        ({"rms_norm_eps": INFINITY}, "rms_norm_eps"),
        ({"rms_norm_eps": NAN}, "rms_norm_eps"),
        ({"rope_theta": INFINITY}, "rope_theta"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"rope_scaling": SCALING | {"factor": INFINITY}}, "factor"),
        ({"rope_scaling": SCALING | {"factor": NAN}}, "factor"),
        ({"rope_scaling": SCALING | {"high_freq_factor": 10**400}}, "high_freq_factor"),
        ({"rope_scaling": SCALING | {"original_max_position_embeddings": 10**40}}, "original_max_position_embeddings"),
        ({"rope_parameters": {"full_attention": SCALING}}, "RoPE"),
        ({"rope_parameters": SCALING | {"partial_rotary_factor": 0.5}}, "a part of each head"),
        ({"partial_rotary_factor": 0.25}, "partial_rotary_factor"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings"),
        ({"model_type": ..., "architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
        ({"model_type": "qwen2"}, "qwen2"),
        ({"mlp_bias": True}, "no biases"),
        ({"eos_token_id": "x"}, "eos_token_id"),
        ({"eos_token_id": [1, None]}, "eos_token_id"),
        ({"bos_token_id": 1.5}, "bos_token_id"),
    ],
)
def test_a_config_that_would_take_the_machine_or_mean_something_else(hf, changes, word):
    edit(hf / "config.json", **changes)
    with pytest.raises(HerdError, match=word) as caught:
        open_model(hf)
    assert str(hf) in caught.value.where


@pytest.mark.parametrize("value", [INFINITY, NAN, 0.0, -1.0])
def test_settings_are_finite(value):
    for name in ("norm_eps", "rope_theta"):
        with pytest.raises(SettingError, match=name):
            LlamaConfig(64, 32, 3, 4, 2, 48, **{name: value})
    with pytest.raises(SettingError, match="factor"):
        RopeScaling(factor=value)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"n_layers": 10**9}, "n_layers"),
        ({"norm_eps": INFINITY}, "norm_eps"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"vision_chunk_size": "x"}, "images"),
        ({"use_scaled_rope": "false"}, "use_scaled_rope"),
    ],
)
def test_params_that_would_take_the_machine_or_mean_something_else(meta, changes, word):
    edit(meta / "params.json", **changes)
    with pytest.raises(HerdError, match=word):
        open_model(meta)


@pytest.mark.parametrize("stated", [{"stops": ["x", {}]}, {"stops": [True]}, {"activation_bound": -3.0}])
def test_what_herd_json_says_is_not_believed_blindly(meta, stated):
    (meta / "herd.json").write_text(json.dumps({"meta": stated}))
    assert open_model(meta).stops == ()


ODD = {
    "sparse": torch.eye(4).to_sparse(),
    "without values": torch.empty(4, 4, device="meta"),
    "expanded": torch.ones(1, 1).expand(1000, 1000),
    "a number": torch.tensor(1.0),
    "whole numbers": torch.ones(32, 32, dtype=torch.int8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["layers.0.attention.wq.weight", "extra"])
def test_tensors_that_are_no_weights(meta, kind, name):
    path = meta / "consolidated.00.pth"
    state = {key: value.clone() for key, value in torch.load(path, weights_only=True).items()}
    torch.save(state | {name: ODD[kind]}, path)
    with pytest.raises(HerdError):
        open_model(meta)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_table_is_an_error_of_ours(meta):
    """Every byte of data.pkl may be anything: what torch's unpickler raises then is not ours to choose."""
    path = meta / "consolidated.00.pth"
    data, chance = path.read_bytes(), random.Random(0)
    with zipfile.ZipFile(path) as archive:
        table = archive.read("archive/data.pkl")
    start, refused = data.index(table), 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 2, 5])):
            damaged[start + chance.randrange(len(table))] = chance.choice([chance.randrange(256), *b"0.R(t"])
        path.write_bytes(bytes(damaged))
        try:
            read_pth(path)
        except FormatError:
            refused += 1
    assert refused > 100  # the others changed a name


def test_whole_numbers_are_no_weights_in_safetensors_either(hf):
    from herd.weights.tensors import SINGLE, Entry, write_tensors

    entries = [Entry(e.name, e.shape, torch.int64, e.values) for e in open_model(hf).tensors.values()]
    (hf / SINGLE).unlink()
    write_tensors(hf, entries, 2**30)
    with pytest.raises(HerdError, match="weights are floats"):
        open_model(hf)


def test_the_undamaged_ones_open(hf, meta):
    assert same(tensors(hf), tensors(meta))


def test_names_that_steer_a_terminal_are_not_printed(hf):
    state = tensors(hf) | {"x\x1b[2J\n\u202ename": torch.ones(1)}
    save_file(state, hf / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"unexpected: x\?\[2J\?\?name"):
        open_model(hf)


BARE = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe"}
BARE |= {"tokenizer.ggml.tokens": ["a", "b", "ab"], "tokenizer.ggml.merges": ["a b"]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokens", [1, 2, 3]),
        ("tokens", "abc"),
        ("token_type", 3),
        ("token_type", [1, 1]),
        ("token_type", ["x", 1, 1]),
        ("merges", [1]),
        ("merges", None),
        ("scores", [0.0]),
        ("scores", ["x", 0.0, 0.0]),
    ],
)
def test_a_tokenizer_in_a_gguf_that_is_none(key, value):
    other = {"tokenizer.ggml.model": "llama"} if key == "scores" else {}
    with pytest.raises(FormatError, match=key):
        GgufTokenizer({**BARE, **other, f"tokenizer.ggml.{key}": value}, "file").description()
    assert GgufTokenizer(BARE, "file").description()["model"]["merges"] == [["a", "b"]]
