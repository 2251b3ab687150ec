"""FP8 folders with static scales of activations (llm-compressor's FP8, AutoFP8): honoured, kept, or refused by name."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from fp8_folders import (
    E4M3,
    STATIC,
    close,
    fp8_layers,
    layers_differ,
    logits_of,
    logits_of_transformers,
    quantise,
    scheme,
    wide,
)
from herd.cli import main
from herd.errors import ArtifactError
from herd.files import read_json
from herd.llama.config import LlamaConfig
from herd.progress import Progress
from herd.quantize.fp8 import save_fp8
from herd.release.facts import facts_of
from herd.release.fp8 import fp8_lines
from herd.release.header import format_tags
from herd.weights.convert import convert
from herd.weights.examine import examine
from herd.weights.formats import WriteOptions
from herd.weights.fp8 import Fp8Linear
from herd.weights.hf import load_model, save_model
from herd.weights.lora import LoraSettings, attach, merge
from herd.weights.peft import save_adapter
from herd.weights.registry import open_model
from herd.weights.tensors import SINGLE
from herd.weights.widen import fp8_names
from stored_models import edit_config, make_model, same, tensors

CONFIG = LlamaConfig(64, 32, 3, 4, 2, 48, max_seq_len=512)
AUTO = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
ONE = "model.layers.1.mlp.up_proj.input_scale"


def input_scales(shape, dtype, seed=5):
    """A fixed scale for every projection, each another, some so small that activations saturate."""
    generator = torch.Generator().manual_seed(seed)
    names = [f"model.layers.{i}.self_attn.{leaf}_proj" for i in range(CONFIG.n_layers) for leaf in "qkvo"]
    names += [f"model.layers.{i}.mlp.{leaf}_proj" for i in range(CONFIG.n_layers) for leaf in ("gate", "up", "down")]
    drawn = torch.rand(len(names), generator=generator) * 0.01 + 0.001
    return {f"{n}.input_scale": x.reshape(shape).to(dtype) for n, x in zip(names, drawn, strict=True)}


# As the two writers leave them: llm-compressor in the model's dtype, AutoFP8 as bare fp32 numbers.
KINDS = {
    "llm-compressor": (scheme("tensor", STATIC), (1,), torch.bfloat16),
    "naive": (scheme("tensor", STATIC, format="naive-quantized", quantization_status="frozen"), (1,), torch.float32),
    "by row": (scheme("channel", STATIC), (1,), torch.float32),
    "AutoFP8": (AUTO, (), torch.float32),
}


def make(folder, kind):
    stated, shape, dtype = KINDS[kind]
    save_model(folder, make_model(CONFIG), CONFIG, herd={})
    by_row = kind == "by row"
    weight_shape = None if by_row else shape
    state = quantise(
        folder, stated, by_row=by_row, scale_dtype=dtype, shape=weight_shape, also=input_scales(shape, dtype)
    )
    return state | input_scales(shape, dtype)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    make(tmp_path / "m", "llm-compressor")
    return tmp_path / "m"


def rewrite(folder, **changes):
    state = load_file(folder / SINGLE) | changes
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, folder / SINGLE)


class Notes(Progress):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)

    def update(self, *_):
        pass


def test_both_kinds_are_read(tmp_path, kind):
    state = make(tmp_path / "m", kind)
    model = load_model(tmp_path / "m")
    layers = fp8_layers(model)
    assert len(layers) == 7 * CONFIG.n_layers
    assert not isinstance(model.lm_head, Fp8Linear)
    for name, layer in layers.items():
        assert torch.equal(layer.weight.float() * layer.weight_scale, wide(state, f"{name}.weight"))
        assert layer.input_scale.tolist() == [state[f"{name}.input_scale"].float().item()]
        assert layer.bound is None


def test_every_layer_computes_what_transformers_computes(tmp_path, kind):
    make(tmp_path / "m", kind)
    ours = load_model(tmp_path / "m")
    convert(tmp_path / "m", tmp_path / "again", to="hf")  # transformers does not read AutoFP8's own spelling
    # Of a folder that is "naive-quantized" and "frozen" transformers computes something else; why was not isolated.
    for folder in [tmp_path / "again"] + ([] if kind in ("AutoFP8", "naive") else [tmp_path / "m"]):
        assert layers_differ(folder, ours, spread=2.0) == []


def test_a_whole_model_is_that_of_transformers(tmp_path, kind):
    pytest.importorskip("compressed_tensors", reason="reading FP8 in transformers needs compressed-tensors")
    make(tmp_path / "m", kind)
    convert(tmp_path / "m", tmp_path / "again", to="hf")
    assert torch.equal(logits_of(tmp_path / "again"), logits_of(tmp_path / "m"))
    theirs = logits_of_transformers(tmp_path / "again")
    # fp32 sums in another order move some activations to the next e4m3: not exact, as for dynamic scales
    assert close(logits_of(tmp_path / "m"), theirs, 1e-2)
    rewrite(tmp_path / "m", **{ONE: load_file(tmp_path / "m" / SINGLE)[ONE] * 0.05})
    assert not close(logits_of(tmp_path / "m"), theirs, 1e-2)  # a wrong scale would be seen


def test_it_stays_what_it_is_from_hf_to_hf(tmp_path, kind):
    make(tmp_path / "m", kind)
    convert(tmp_path / "m", tmp_path / "again", to="hf", options=WriteOptions(max_shard_bytes=20_000))
    assert same(tensors(tmp_path / "m"), tensors(tmp_path / "again"))
    (group,) = read_json(tmp_path / "again" / "config.json")["quantization_config"]["config_groups"].values()
    assert {key: group["input_activations"][key] for key in STATIC} == STATIC
    assert read_json(tmp_path / "again" / "herd.json")["fp8"] == {
        "activation_scales": "static",
        "activation_bound": None,
    }
    made = [*(tmp_path / "again").glob("*.safetensors")]
    assert len(made) > 1
    assert sum(name.endswith(".input_scale") for file in made for name in load_file(file)) == 21


def test_a_loaded_model_is_saved_with_its_scales(tmp_path, folder):
    save_fp8(tmp_path / "saved", load_model(folder), herd={})
    assert torch.equal(logits_of(tmp_path / "saved"), logits_of(folder))
    assert open_model(tmp_path / "saved").is_static


@pytest.mark.parametrize("to", ["meta", "gguf", "hf as bf16"])
def test_formats_without_a_word_for_it_get_bf16_and_it_is_said(tmp_path, folder, to):
    state, notes = tensors(folder), Notes()
    options = WriteOptions(dtype="bf16") if to == "hf as bf16" else None
    convert(folder, tmp_path / "out", to=to.split()[0], options=options, progress=notes)
    assert any("BF16" in note and "fixed scales" in note for note in notes.said)
    back = tensors(tmp_path / "out")
    assert back.keys() == {name for name in state if not name.endswith("_scale")}
    for name in fp8_names(open_model(folder)):
        assert torch.equal(back[name].bfloat16(), wide(state, name).bfloat16()), name


def test_an_adapter_over_it_leaves_the_other_matrices_static(tmp_path, folder):
    model = load_model(folder)
    attach(model, LoraSettings(rank=2, targets=("q_proj",)))
    save_adapter(tmp_path / "a", model, base=str(folder), herd={})
    stored = open_model(tmp_path / "a")
    assert stored.is_static
    assert len(fp8_names(stored)) == 6 * CONFIG.n_layers
    convert(tmp_path / "a", tmp_path / "merged", to="hf")
    assert not any("q_proj" in name and name.endswith("_scale") for name in tensors(tmp_path / "merged"))
    merge(model)
    assert isinstance(model.model.layers[0].mlp.up_proj, Fp8Linear)


def test_inspect_says_so(folder, capsys):
    report = examine(folder, values=True)
    assert report.parameters == CONFIG.parameters()
    main(["inspect", str(folder)])
    said = capsys.readouterr().out
    assert "21 matrices (attention and feed-forward of all layers), activations by static scales" in said
    main(["inspect", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["activation_scales"] == "static"


@pytest.mark.parametrize(
    ("kind", "words", "tags"),
    [
        ("llm-compressor", "Layout: compressed-tensors", ["fp8", "compressed-tensors"]),
        ("AutoFP8", "Layout: AutoFP8's `fp8`", ["fp8"]),
    ],
)
def test_a_release_says_so(tmp_path, kind, words, tags):
    make(tmp_path / "m", kind)
    facts = facts_of(tmp_path / "m")
    said = "\n".join(fp8_lines(facts.fp8))
    assert "one scale a matrix; activations are divided by one fixed scale a matrix, found by calibration" in said
    assert words in said
    assert "Kept in higher precision: `lm_head`." in said
    assert format_tags(facts) == tags


def test_scales_of_a_cache_are_passed_over_and_said(tmp_path, folder):
    cache = {f"model.layers.{i}.self_attn.{c}_scale": torch.ones(1) for i in range(3) for c in "kv"}
    edit_config(folder, quantization_config=scheme("tensor", STATIC, kv_cache_scheme={**E4M3, "strategy": "tensor"}))
    before = logits_of(folder)
    rewrite(folder, **cache)
    assert torch.equal(logits_of(folder), before)
    assert "key/value cache" in open_model(folder).notes[0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.tensor([0.0]), "is 0;"),
        (torch.tensor([-0.01]), "is -0.01;"),
        (torch.tensor([math.nan]), "is nan;"),
        (torch.tensor([math.inf]), "is inf;"),
        (torch.tensor([1e300], dtype=torch.float64), "is inf;"),
        (torch.tensor([1e-300], dtype=torch.float64), "is 0;"),
        (torch.ones(3), r"\[3\]"),
        (torch.ones(48, 1), r"\[48, 1\]"),
        (torch.ones(0), r"\[0\]"),
        (torch.ones(1, dtype=torch.int64), "int64"),
        (None, "is missing"),
    ],
)
def test_scales_of_activations_that_are_none(tmp_path, folder, capsys, value, words):
    rewrite(folder, **{ONE: value})
    with pytest.raises(ArtifactError, match=words) as caught:
        open_model(folder)
    assert ONE in caught.value.message
    assert caught.value.mend
    assert main(["inspect", str(folder)]) == ArtifactError.exit_code
    assert ONE in capsys.readouterr().out
    assert main(["convert", str(folder), str(tmp_path / "out"), "--to", "hf"]) == ArtifactError.exit_code
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stated", [scheme("tensor"), AUTO | {"activation_scheme": "dynamic"}])
def test_fixed_scales_where_config_says_dynamic(folder, stated):
    edit_config(folder, quantization_config=stated)
    with pytest.raises(ArtifactError, match=r"dynamic, and model\.layers\.0\..*input_scale is there"):
        open_model(folder)


def test_a_fixed_scale_of_a_layer_that_is_not_fp8(folder):
    rewrite(folder, **{"lm_head.input_scale": torch.ones(1)})
    with pytest.raises(ArtifactError, match=r"unexpected: lm_head\.input_scale"):
        open_model(folder)
