"""Meta's layout: Meta's arithmetic written anew, every model-parallel size bit for bit, and bad files."""

import base64
import json
import math
import pickle
import shutil
import zipfile
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from herd.cli import main
from herd.errors import ArtifactError, FormatError, HerdError, InputError, SettingError
from herd.llama.config import LlamaConfig, RopeScaling, llama31_8b, llama31_70b, llama31_405b
from herd.quantize.fp8 import quantize_model, save_fp8
from herd.text import Tokenizer
from herd.weights.build import load_any
from herd.weights.convert import convert
from herd.weights.formats import WriteOptions
from herd.weights.fp8 import quantize_rows
from herd.weights.hf import load_model, save_model
from herd.weights.meta_params import from_params, to_params
from herd.weights.pth import read_pth
from herd.weights.registry import detect, open_model
from stored_models import make_model, same, tensors

CONFIG = LlamaConfig(64, 64, 4, 16, 8, 96, max_seq_len=512)
TIED = LlamaConfig(64, 64, 2, 16, 8, 96, max_seq_len=512, tie_embeddings=True, rope_scaling=None)


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "hf", make_model(CONFIG), CONFIG, herd={"made_by": "test"})
    ranks = "".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    (tmp_path / "hf" / "tokenizer.model").write_text(ranks)
    return tmp_path / "hf"


def meta_forward(state, params, tokens):
    """Logits [T, V] by Meta's arithmetic: neighbours of a head as complex numbers, keys repeated for their group."""
    dim, heads, groups = params["dim"], params["n_heads"], params["n_kv_heads"]
    size = dim // heads
    frequencies = 1.0 / (params["rope_theta"] ** (torch.arange(0, size, 2).double() / size))
    if params["use_scaled_rope"]:
        scaled = []
        for frequency in frequencies.tolist():
            wave = 2 * math.pi / frequency
            smooth = (8192 / wave - 1) / 3
            between = (1 - smooth) * frequency / 8 + smooth * frequency
            scaled.append(frequency if wave < 2048 else frequency / 8 if wave > 8192 else between)
        frequencies = torch.tensor(scaled)
    angles = torch.outer(torch.arange(len(tokens)).double(), frequencies.double())
    turn = torch.polar(torch.ones_like(angles), angles)

    def norm(x, weight):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + params["norm_eps"]) * weight.double()

    def rotate(x):
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn[:, None]).flatten(2)

    def weight(name):
        return state[name].double()

    x = weight("tok_embeddings.weight")[tokens]
    for i in range(params["n_layers"]):
        h = norm(x, state[f"layers.{i}.attention_norm.weight"])
        q, k, v = (
            (h @ weight(f"layers.{i}.attention.w{c}.weight").t()).unflatten(-1, (n, size))
            for c, n in (("q", heads), ("k", groups), ("v", groups))
        )
        q, k = rotate(q), rotate(k)
        k, v = (t.repeat_interleave(heads // groups, dim=1) for t in (k, v))
        scores = torch.einsum("thk,shk->hts", q, k) / math.sqrt(size)
        scores = scores + torch.full(scores.shape[1:], -torch.inf).triu(1)
        mixed = torch.einsum("hts,shk->thk", scores.softmax(-1), v).flatten(1)
        x = x + mixed @ weight(f"layers.{i}.attention.wo.weight").t()
        h = norm(x, state[f"layers.{i}.ffn_norm.weight"])
        gate, up = (h @ weight(f"layers.{i}.feed_forward.{w}.weight").t() for w in ("w1", "w3"))
        x = x + (torch.nn.functional.silu(gate) * up) @ weight(f"layers.{i}.feed_forward.w2.weight").t()
    return norm(x, state["norm.weight"]) @ weight("output.weight").t()


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied-scaled", "tied-unscaled"])
def test_metas_own_arithmetic_gives_our_logits(tmp_path, config):
    save_model(tmp_path / "hf", make_model(config), config, herd={})
    convert(tmp_path / "hf", tmp_path / "meta", to="meta")
    state = torch.load(tmp_path / "meta" / "consolidated.00.pth", weights_only=True)
    params = json.loads((tmp_path / "meta" / "params.json").read_text())
    tokens = torch.randint(0, 64, (300,), generator=torch.Generator().manual_seed(0))
    model = load_model(tmp_path / "hf")
    with torch.no_grad():
        ours = model.logits(model(tokens[None]))[0].double()
    theirs = meta_forward(state, params, tokens)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("ranks", [1, 2, 8, 16])
def test_there_and_back_is_bit_identical(tmp_path, config, ranks):
    save_model(tmp_path / "hf", make_model(config), config, herd={})
    convert(tmp_path / "hf", tmp_path / "meta", to="meta", options=WriteOptions(model_parallel=ranks))
    assert len(list((tmp_path / "meta").glob("consolidated.*.pth"))) == ranks
    convert(tmp_path / "meta", tmp_path / "back", to="hf")
    assert same(tensors(tmp_path / "hf"), tensors(tmp_path / "back"))
    assert open_model(tmp_path / "back").config == config
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("hf", "back"))
    assert first == second
    assert json.loads((tmp_path / "hf" / "config.json").read_text()) == json.loads(
        (tmp_path / "back" / "config.json").read_text()
    )


@given(st.sampled_from([(16, 8), (8, 8), (8, 4), (4, 1), (4, 4)]), st.sampled_from([1, 2, 4, 8]), st.integers(1, 3))
def test_any_shape_goes_there_and_back(tmp_path_factory, heads, ranks, layers):
    config = LlamaConfig(32, heads[0] * 4, layers, *heads, 40, rope_scaling=None)
    folder = tmp_path_factory.mktemp("any")
    save_model(folder / "hf", make_model(config), config, herd={})
    options = WriteOptions(model_parallel=ranks)
    if heads[0] % ranks:
        with pytest.raises(SettingError, match="query heads cannot be cut"):
            convert(folder / "hf", folder / "meta", to="meta", options=options)
        return
    convert(folder / "hf", folder / "meta", to="meta", options=options)
    assert same(tensors(folder / "hf"), tensors(folder / "meta"))
    shutil.rmtree(folder)


def test_ranks_hold_what_metas_loader_expects(folder, tmp_path):
    """Meta's resharding concatenates along these dimensions and copies norms from the first file."""
    convert(folder, tmp_path / "one", to="meta")
    convert(folder, tmp_path / "four", to="meta", options=WriteOptions(model_parallel=4))
    whole = torch.load(tmp_path / "one" / "consolidated.00.pth", weights_only=True)
    ranks = [torch.load(tmp_path / "four" / f"consolidated.0{r}.pth", weights_only=True) for r in range(4)]
    for name, tensor in whole.items():
        dim = None if "norm" in name else 1 if name.endswith(("wo.weight", "w2.weight")) else 0
        pieces = [rank[name] for rank in ranks]
        assert torch.equal(pieces[0] if dim is None else torch.cat(pieces, dim), tensor), name


def test_sixteen_ranks_store_each_of_eight_heads_twice(folder, tmp_path):
    """405B's mp16 layout. A stranger's folder has no herd.json to say so: the values tell."""
    convert(folder, tmp_path / "m", to="meta", options=WriteOptions(model_parallel=16))
    assert json.loads((tmp_path / "m" / "params.json").read_text())["n_kv_heads"] == 16
    ranks = [read_pth(tmp_path / "m" / f"consolidated.{r:02d}.pth") for r in range(16)]
    assert ranks[0]["layers.1.attention.wv.weight"].shape == (4, 64)
    for rank in range(0, 16, 2):
        for kind in "kv":
            name = f"layers.1.attention.w{kind}.weight"
            assert torch.equal(ranks[rank][name], ranks[rank + 1][name])
    (tmp_path / "m" / "herd.json").unlink()
    model = open_model(tmp_path / "m")
    assert model.config.n_kv_heads == 8
    assert any("each stored 2 times" in note for note in model.notes)
    assert same(tensors(folder), tensors(tmp_path / "m"))


def test_heads_that_only_begin_alike_are_refused(folder, tmp_path):
    convert(folder, tmp_path / "m", to="meta", options=WriteOptions(model_parallel=16))
    path = tmp_path / "m" / "consolidated.05.pth"
    state = torch.load(path, weights_only=True)
    state["layers.2.attention.wk.weight"] += 1
    torch.save(state, path)
    with pytest.raises(ArtifactError, match="should be stored twice differ"):
        tensors(tmp_path / "m")


def test_a_folder_written_by_torch_itself(folder, tmp_path):
    convert(folder, tmp_path / "m", to="meta", options=WriteOptions(model_parallel=2))
    for path in (tmp_path / "m").glob("*.pth"):
        state = torch.load(path, weights_only=True)
        state["rope.freqs"] = torch.ones(2)
        torch.save(state, path)
    assert same(tensors(folder), tensors(tmp_path / "m"))


def test_tokenizer_licence_and_lineage_travel(folder, tmp_path):
    (folder / "LICENSE").write_text("terms")
    convert(folder, tmp_path / "meta", to="meta")
    convert(tmp_path / "meta", tmp_path / "back", to="hf")
    for name in ("tokenizer.model", "LICENSE"):
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
    assert json.loads((tmp_path / "back" / "herd.json").read_text()) == {"made_by": "test"}


def test_bare_ranks_become_the_files_that_transformers_reads(folder, tmp_path):
    convert(folder, tmp_path / "meta", to="meta")
    convert(tmp_path / "meta", tmp_path / "back", to="hf")
    assert (tmp_path / "back" / "chat_template.jinja").is_file()
    expected = Tokenizer.load(folder / "tokenizer.model").fingerprint
    assert Tokenizer.load(tmp_path / "back" / "tokenizer.json").fingerprint == expected


@pytest.mark.parametrize(
    ("config", "multiplier", "multiple"),
    [(llama31_8b(), 1.3, 1024), (llama31_70b(), 1.3, 4096), (llama31_405b(), 1.2, 4096)],
    ids=["8b", "70b", "405b"],
)
def test_params_of_the_released_models(config, multiplier, multiple):
    params = to_params(config, config.n_kv_heads, "")
    assert (params["ffn_dim_multiplier"], params["multiple_of"]) == (multiplier, multiple)
    assert params["use_scaled_rope"] is True
    sizes = {"ffn_dim": config.ffn_dim, "vocab_size": config.vocab_size}
    assert from_params(params, **sizes, tied=False, stated={}, where="") == config


@given(st.integers(1, 300), st.integers(1, 4000))
def test_every_feed_forward_width_can_be_said(dim, ffn_dim):
    from herd.llama.config import ffn_size

    params = to_params(LlamaConfig(10, 2 * dim, 1, 1, 1, ffn_dim), 1, "")
    assert ffn_size(2 * dim, params["ffn_dim_multiplier"], params["multiple_of"]) == ffn_dim


def test_a_scaling_that_meta_cannot_say_is_refused(tmp_path):
    config = replace(CONFIG, rope_scaling=RopeScaling(factor=32.0))
    save_model(tmp_path / "hf", make_model(config), config, herd={})
    with pytest.raises(InputError, match=r"scaling of Llama 3\.1 only"):
        convert(tmp_path / "hf", tmp_path / "meta", to="meta")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_stop_ids_come_from_the_name_where_nothing_says_them(tmp_path):
    config = LlamaConfig(128_256, 8, 1, 2, 1, 8)
    save_model(tmp_path / "hf", make_model(config), config, herd={})
    for name, stops in (("Llama-3.1-8B-Instruct", (128_001, 128_008, 128_009)), ("Llama-3.1-8B", (128_001,))):
        convert(tmp_path / "hf", tmp_path / name / "original", to="meta")
        (tmp_path / name / "original" / "herd.json").unlink()
        model = open_model(tmp_path / name / "original")
        assert (model.bos, model.stops) == (128_000, stops)
        assert any("stop ids" in note for note in model.notes)


# FP8


@pytest.fixture
def fp8(tmp_path):
    model = make_model(CONFIG)
    quantize_model(model)
    save_fp8(tmp_path / "fp8", model, herd={})
    return tmp_path / "fp8"


@pytest.mark.parametrize("ranks", [1, 2, 8, 16])
def test_fp8_goes_there_and_back_bit_for_bit(fp8, tmp_path, ranks):
    convert(fp8, tmp_path / "meta", to="meta", options=WriteOptions(model_parallel=ranks))
    scales = torch.load(tmp_path / "meta" / f"fp8_scales_{ranks - 1}.pt", weights_only=True)
    assert scales.keys() == {f"{i}_feed_forward.{w}_{ranks - 1}" for i in (1, 2) for w in ("w1", "w2", "w3")}
    assert scales[f"1_feed_forward.w1_{ranks - 1}"].shape == (96 // ranks,)
    assert scales[f"1_feed_forward.w2_{ranks - 1}"].shape == (64,)
    convert(tmp_path / "meta", tmp_path / "back", to="hf")
    assert same(tensors(fp8), tensors(tmp_path / "back"))
    config, back = (json.loads((path / "config.json").read_text()) for path in (fp8, tmp_path / "back"))
    assert config == back
    assert load_any(tmp_path / "meta").model.layers[1].mlp.up_proj.bound == 1200.0


def test_fp8_as_the_release_quantised_it_rank_by_rank(folder, tmp_path):
    """Each rank's slice of w2 has scales of its own: one output row, several scales."""
    convert(folder, tmp_path / "m", to="meta", options=WriteOptions(model_parallel=2))
    (tmp_path / "m" / "herd.json").unlink()
    exact = {}
    for rank in range(2):
        path = tmp_path / "m" / f"consolidated.0{rank}.pth"
        state, scales = torch.load(path, weights_only=True), {}
        for layer in (1, 2):
            for key in ("w1", "w2", "w3"):
                name = f"layers.{layer}.feed_forward.{key}.weight"
                state[name], scale = quantize_rows(state[name])
                scales[f"{layer}_feed_forward.{key}_{rank}"] = scale.squeeze(1)
                exact.setdefault(name, []).append(state[name].float() * scale)
        torch.save(state, path)
        torch.save(scales, tmp_path / "m" / f"fp8_scales_{rank}.pt")
    model = open_model(tmp_path / "m")
    assert any("2 FP8 matrices have scales of their own" in note for note in model.notes)
    for layer in (1, 2):
        up, down = (f"model.layers.{layer}.mlp.{leaf}_proj.weight" for leaf in ("up", "down"))
        assert model.tensors[up].dtype == torch.float8_e4m3fn
        assert model.tensors[down].dtype == torch.bfloat16
        whole = torch.cat(exact[f"layers.{layer}.feed_forward.w2.weight"], 1)
        assert torch.equal(model.tensors[down].values(), whole.bfloat16())
        scale = model.tensors[up + "_scale"].values()
        whole = torch.cat(exact[f"layers.{layer}.feed_forward.w3.weight"], 0)
        assert torch.equal(model.tensors[up].values().float() * scale, whole)
    convert(tmp_path / "m", tmp_path / "hf8", to="hf")
    assert load_model(tmp_path / "hf8").config == replace(CONFIG, max_seq_len=131_072)


# what is refused


def edit(path, change):
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


@pytest.fixture
def meta(folder, tmp_path):
    convert(folder, tmp_path / "meta", to="meta", options=WriteOptions(model_parallel=4))
    return tmp_path / "meta"


def refused(path, *words, error=HerdError):
    with pytest.raises(error) as caught:
        open_model(path)
    for word in words:
        assert word in str(caught.value)


def test_missing_files(meta):
    (meta / "consolidated.03.pth").rename(meta / "kept")
    refused(meta, "3 consolidated files", "1/4 of the model", error=ArtifactError)
    (meta / "kept").rename(meta / "consolidated.03.pth")
    (meta / "consolidated.01.pth").unlink()
    refused(meta, "consolidated.01.pth is missing", error=ArtifactError)


def test_missing_scales(fp8, tmp_path):
    convert(fp8, tmp_path / "m", to="meta")
    scales = tmp_path / "m" / "fp8_scales_0.pt"
    edit(scales, lambda state: state.pop("2_feed_forward.w3_0"))
    refused(tmp_path / "m", "2_feed_forward.w3_0 is missing", error=FormatError)
    scales.unlink()
    refused(tmp_path / "m", "a file of weights is missing", "fp8_scales_0.pt", error=ArtifactError)


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -30])
def test_cut_short(meta, keep):
    path = meta / "consolidated.02.pth"
    path.write_bytes(path.read_bytes()[:keep])
    refused(meta, "not a whole file of tensors", "consolidated.02.pth", error=FormatError)


def test_tensors_of_another_model(meta):
    edit(meta / "consolidated.02.pth", lambda state: state.pop("norm.weight"))
    refused(meta, "norm.weight", "consolidated.02.pth", error=FormatError)


def test_a_missing_tensor(meta):
    for path in meta.glob("*.pth"):
        edit(path, lambda state: state.pop("layers.1.attention.wo.weight"))
    refused(meta, "missing: model.layers.1.self_attn.o_proj.weight [64, 64]", error=ArtifactError)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dim": "64"}, "dim"),
        ({"dim": 32}, "wrong shape"),
        ({"n_layers": 5}, "missing: model.layers.4"),
        ({"n_layers": 0}, "n_layers"),
        ({"n_heads": 7}, "7 query heads cannot share"),
        ({"vocab_size": 65}, "vocab_size 65"),
        ({"quantization_args": {"scheme": "int4_weight_int8_dynamic_activation"}}, "int4"),
        ({"norm_eps": "small"}, "norm_eps"),
    ],
)
def test_params_that_do_not_fit(meta, changes, word):
    params = json.loads((meta / "params.json").read_text())
    (meta / "params.json").write_text(json.dumps(params | changes))
    refused(meta, word)


def test_a_pickle_that_runs_code_is_refused(meta, tmp_path):
    path = meta / "consolidated.00.pth"
    target = tmp_path / "pwned"

    class Evil:
        def __reduce__(self):
            return (open, (str(target), "w"))

    torch.save({"tok_embeddings.weight": torch.ones(2, 2), "x": Evil()}, path)
    refused(meta, "more than tensors", "nothing of it was run", error=FormatError)
    assert not target.exists()


def rezip(path, change):
    """The same archive with its records changed: name -> bytes."""
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    change(records)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)


def test_a_table_that_claims_more_bytes_than_are_there(meta):
    path = meta / "consolidated.00.pth"

    def lie(records):
        largest = max((n for n in records if "/data/" in n), key=lambda n: len(records[n]))
        records[largest] = records[largest][:-64]

    rezip(path, lie)
    refused(meta, "consolidated.00.pth", error=FormatError)


def test_compressed_records_are_refused(meta):
    path = meta / "consolidated.00.pth"
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    refused(meta, "is compressed", error=FormatError)


def test_what_is_no_table_of_tensors(meta):
    path = meta / "consolidated.00.pth"
    for content in ([torch.ones(2)], {"a": 1}, {1: torch.ones(2)}):
        torch.save(content, path)
        refused(meta, "no table of named tensors", error=FormatError)
    path.write_bytes(pickle.dumps({"a": 1}))
    refused(meta, "not a whole file of tensors", error=FormatError)


def test_links_that_lead_out(meta, tmp_path):
    shutil.move(meta / "consolidated.00.pth", tmp_path / "elsewhere.pth")
    (meta / "consolidated.00.pth").symlink_to(tmp_path / "elsewhere.pth")
    refused(meta, "a link leads out of the folder", error=FormatError)


def test_a_licence_that_is_a_link_to_a_secret(folder, tmp_path):
    (tmp_path / "secret").write_text("key")
    (folder / "LICENSE").symlink_to(tmp_path / "secret")
    refused(folder, "a link leads out of the folder", "LICENSE", error=FormatError)


def test_the_hubs_cache_may_link_to_its_blobs(folder, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "123", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert same(tensors(folder), tensors(snapshot))


def test_from_the_command_line(folder, tmp_path, capsys):
    assert main(["convert", str(folder), str(tmp_path / "m"), "--to", "meta", "--model-parallel", "2"]) == 0
    assert [form.name for form in detect(tmp_path / "m")] == ["meta"]
    assert main(["convert", str(tmp_path / "m"), str(tmp_path / "m"), "--to", "hf"]) == 3
    assert main(["convert", str(folder), str(tmp_path / "x"), "--to", "meta", "--model-parallel", "3"]) == 2
    assert "query heads" in capsys.readouterr().err
    assert main(["convert", str(folder), str(tmp_path / "x"), "--to", "onnx"]) == 2
    assert main(["convert", str(folder), str(tmp_path / "x"), "--to", "meta", "--dtype", "f32"]) == 2
    assert not (tmp_path / "x").exists()


def test_llama_32_has_its_own_scaling():
    """params.json of 1B and 3B says use_scaled_rope as 3.1's does, and means 32."""
    sizes = {"ffn_dim": 8192, "vocab_size": 128_256, "tied": True, "stated": {}, "where": ""}
    for dim, layers, heads, multiplier, multiple in ((2048, 16, 32, 1.5, 256), (3072, 28, 24, 1.0, 256)):
        config = LlamaConfig(
            128_256, dim, layers, heads, 8, 8192, rope_scaling=RopeScaling(factor=32.0), tie_embeddings=True
        )
        params = to_params(config, 8, "")
        assert (params["ffn_dim_multiplier"], params["multiple_of"]) == (multiplier, multiple)
        assert from_params(params, **sizes) == config
        other = replace(config, n_layers=layers + 1, rope_scaling=RopeScaling())
        assert from_params(to_params(other, 8, ""), **sizes) == other
