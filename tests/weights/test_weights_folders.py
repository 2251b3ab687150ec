"""Model folders: round trips, both ways with transformers, and every wrong file refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from herd.errors import ArtifactError, FormatError, HerdError, StorageError
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.weights.hf import load_config, load_model, save_model
from herd.weights.tensors import INDEX, SINGLE
from stored_models import edit_config

CONFIG = LlamaConfig(61, 32, 2, 4, 2, 48)
TIED = LlamaConfig(61, 32, 2, 4, 2, 48, tie_embeddings=True, rope_scaling=None, norm_eps=1e-6)


class FakeTokenizer:
    bos, stop_ids = 50, (51, 58, 59)

    def save(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def make(config=CONFIG):
    model = Llama(config)
    init_weights(model, 3)
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "m", make(), CONFIG, dtype=torch.float32, herd={"made_by": "test"})
    return tmp_path / "m"


@pytest.fixture
def sharded(tmp_path):
    save_model(tmp_path / "s", make(), CONFIG, dtype=torch.float32, herd={}, max_shard_bytes=10_000)
    return tmp_path / "s"


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("shard", [1, 10_000, 2**30])
def test_round_trip_is_bit_identical(tmp_path, config, shard):
    model = make(config)
    total = save_model(tmp_path / "m", model, config, dtype=torch.float32, herd={}, max_shard_bytes=shard)
    assert total == config.parameters() * 4
    assert load_config(tmp_path / "m") == config
    assert same(load_model(tmp_path / "m").state_dict(), model.state_dict())
    assert len(list((tmp_path / "m").glob("*.safetensors"))) == (
        config.tensors() if shard == 1 else 1 if shard == 2**30 else len(set(_map(tmp_path / "m").values()))
    )


def _map(folder):
    return json.loads((folder / INDEX).read_text())["weight_map"]


def test_shards_keep_their_limit_and_the_index_their_sum(sharded):
    index = json.loads((sharded / INDEX).read_text())
    assert index["metadata"]["total_size"] == CONFIG.parameters() * 4
    assert len(index["weight_map"]) == CONFIG.tensors()
    for path in sharded.glob("*.safetensors"):
        assert path.stat().st_size < 10_000 + 2_000  # and its header
    assert {path.name for path in sharded.glob("*.safetensors")} == set(index["weight_map"].values())


def test_bf16_on_disk_is_the_default_and_dtypes_convert(tmp_path):
    model = make()
    assert save_model(tmp_path / "m", model, CONFIG, herd={}) == CONFIG.parameters() * 2
    loaded = load_model(tmp_path / "m")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.bfloat16().float())
    assert load_model(tmp_path / "m", dtype=torch.bfloat16).output_weight.dtype == torch.bfloat16
    assert json.loads((tmp_path / "m" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_loaded_model_trains_and_leaves_its_file_alone(folder):
    before = (folder / SINGLE).read_bytes()
    model = load_model(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert (folder / SINGLE).read_bytes() == before
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


def test_the_other_files(tmp_path):
    save_model(tmp_path / "m", make(), CONFIG, herd={"lineage": [1]}, tokenizer=FakeTokenizer(), instruct=True)
    read = {path.name: json.loads(path.read_text()) for path in (tmp_path / "m").glob("*.json")}
    assert read["herd.json"] == {"lineage": [1]}
    assert read["config.json"]["eos_token_id"] == [51, 58, 59]
    assert read["generation_config.json"] == {
        "bos_token_id": 50,
        "eos_token_id": [51, 58, 59],
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
    }
    assert "tokenizer.json" in read
    save_model(tmp_path / "b", make(), CONFIG, herd={}, tokenizer=FakeTokenizer())
    assert json.loads((tmp_path / "b" / "generation_config.json").read_text()) == {
        "bos_token_id": 50,
        "eos_token_id": 51,
    }


def test_config_json_has_the_released_keys():
    from herd.llama.config import llama31_8b
    from herd.weights.config_json import from_hf, to_hf

    content = to_hf(llama31_8b(), "bfloat16", bos=128_000, eos=[128_001])
    assert content["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expected = {"hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8, "rope_theta": 500000.0}
    assert expected.items() <= content.items()
    assert from_hf(content, "") == llama31_8b()
    new = {key: value for key, value in content.items() if key not in ("rope_scaling", "rope_theta")}
    new["rope_parameters"] = content["rope_scaling"] | {"rope_theta": 500000.0}
    assert from_hf(new, "") == llama31_8b()


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("shard", [10_000, 2**30])
def test_transformers_loads_our_folder(tmp_path, config, shard):
    transformers = pytest.importorskip("transformers")
    model = make(config)
    save_model(tmp_path / "m", model, config, dtype=torch.float32, herd={}, max_shard_bytes=shard)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    tokens = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model.logits(model(tokens)), rtol=1e-5, atol=1e-5)
    assert theirs.dtype == torch.float32


@pytest.mark.parametrize("tied", [False, True])
def test_we_load_the_folder_of_transformers(tmp_path, tied):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=61,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
            rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **vars(CONFIG.rope_scaling)},
        )
    ).eval()
    theirs.save_pretrained(tmp_path / "t", max_shard_size="10KB")
    ours = load_model(tmp_path / "t")
    assert ours.config.tie_embeddings == tied
    assert ours.config.rope_scaling == CONFIG.rope_scaling
    tokens = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(tokens)), theirs(tokens).logits, rtol=1e-5, atol=1e-5)


def refused(folder, error, *words):
    with pytest.raises(error) as caught:
        load_model(folder)
    for word in words:
        assert word in str(caught.value)


def test_nothing_there(tmp_path):
    refused(tmp_path / "nowhere", ArtifactError, "config.json is missing", "nowhere")


def test_a_folder_without_weights(folder):
    (folder / SINGLE).unlink()
    refused(folder, ArtifactError, SINGLE, INDEX)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file(folder, keep):
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[:keep])
    refused(folder, FormatError, "not a whole safetensors file", SINGLE)


def test_a_missing_shard(sharded):
    lost = sorted(set(_map(sharded).values()))[1]
    (sharded / lost).unlink()
    refused(sharded, ArtifactError, "a file of weights is missing", lost)


def test_an_index_that_lies(sharded):
    index = json.loads((sharded / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"]["model.norm.weight"] = files[0]
    (sharded / INDEX).write_text(json.dumps(index))
    refused(sharded, FormatError, "model.norm.weight", files[0])


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": {"a": "../../etc/passwd"}}', '{"weight_map": {"a": 1}}']
)
def test_a_malformed_index(sharded, content):
    (sharded / INDEX).write_text(content)
    refused(sharded, FormatError, INDEX)


def test_the_same_tensor_in_two_shards(sharded):
    files = sorted(set(_map(sharded).values()))
    shutil.copy(sharded / files[0], sharded / files[1])
    refused(sharded, FormatError, "is also in")


def test_missing_unexpected_and_misshapen_tensors_are_all_named(folder):
    edit_config(folder, num_hidden_layers=3)
    refused(folder, ArtifactError, "missing: model.layers.2.self_attn.q_proj.weight [32, 32]")
    edit_config(folder, num_hidden_layers=1)
    refused(folder, ArtifactError, "unexpected: model.layers.1.", SINGLE)
    edit_config(folder, num_hidden_layers=2, intermediate_size=40)
    refused(folder, ArtifactError, "mlp.gate_proj.weight is [48, 32] in " + SINGLE, "config.json says [40, 32]")


def test_an_untied_config_without_output_matrix(tmp_path):
    save_model(tmp_path / "m", make(TIED), TIED, herd={})
    edit_config(tmp_path / "m", tie_word_embeddings=False)
    refused(tmp_path / "m", ArtifactError, "missing: lm_head.weight [61, 32]")


def test_a_tied_folder_may_repeat_the_embedding(tmp_path):
    model = make(TIED)
    state = dict(model.state_dict())
    save_model(tmp_path / "m", state | {"lm_head.weight": state["model.embed_tokens.weight"]}, TIED, herd={})
    assert load_model(tmp_path / "m").config.tie_embeddings


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_type": "mistral"}, "model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_size": ...}, "hidden_size"),
        ({"hidden_size": "32"}, "hidden_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_hidden_layers": 0}, "n_layers"),
        ({"num_key_value_heads": 3}, "share 3 key/value heads"),
        ({"head_dim": 16}, "head_dim"),
        ({"rms_norm_eps": None, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_scaling": [8]}, "RoPE"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
    ],
)
def test_a_config_this_network_cannot_be(folder, changes, word):
    edit_config(folder, **changes)
    refused(folder, HerdError, word, "config.json")


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_malformed_config(folder, content):
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    refused(folder, FormatError, "config.json")


def test_a_state_that_could_not_be_read_again_is_not_written(tmp_path):
    state = make().state_dict()
    state.pop("model.norm.weight")
    with pytest.raises(ArtifactError, match=r"missing: model\.norm\.weight"):
        save_model(tmp_path / "m", state, CONFIG, herd={})
    assert not (tmp_path / "m").exists()


def test_a_full_disk_leaves_the_old_folder(folder, monkeypatch):
    import errno

    from herd.weights import tensors

    def full(path, *rest):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensors, "_write_file", full)
    with pytest.raises(StorageError):
        save_model(folder, make(), CONFIG, herd={})
    monkeypatch.undo()
    assert same(load_model(folder).state_dict(), make().state_dict())
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_loading_takes_no_second_copy(folder):
    """Parameters of the file's own dtype are the memory map itself."""
    model = load_model(folder)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system has no /proc/self/maps")
    address = model.output_weight.data_ptr()
    spans = [line.split() for line in maps.read_text().splitlines() if line.endswith(SINGLE)]
    assert any(int(span[0].split("-")[0], 16) <= address < int(span[0].split("-")[1], 16) for span in spans)
