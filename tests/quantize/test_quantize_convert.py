"""compressed-tensors as a direction of `herd convert`: BF16 to FP8 folders, and back to BF16."""

import json

import pytest
import torch

from herd.cli import main
from herd.errors import SettingError
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.weights.fp8 import dequantize
from herd.weights.hf import load_model, save_model
from herd.weights.stored import FP8, scale_name
from stored_models import same, tensors

CONFIG = LlamaConfig(61, 32, 4, 4, 2, 64, max_seq_len=128)


@pytest.fixture
def folder(tmp_path):
    model = Llama(CONFIG)
    init_weights(model, 3)
    save_model(tmp_path / "bf16", model, CONFIG, herd={"made_by": "test"})
    return tmp_path / "bf16"


def test_to_fp8_and_back(tmp_path, folder):
    assert main(["convert", str(folder), str(tmp_path / "fp8"), "--to", "compressed-tensors"]) == 0
    assert main(["quantize", str(folder), str(tmp_path / "quantised")]) == 0
    narrow = tensors(tmp_path / "fp8")
    assert same(narrow, tensors(tmp_path / "quantised"))
    assert any(tensor.dtype == FP8 for tensor in narrow.values())
    assert main(["convert", str(tmp_path / "fp8"), str(tmp_path / "back"), "--to", "hf", "--dtype", "bf16"]) == 0
    assert "quantization_config" not in json.loads((tmp_path / "back" / "config.json").read_text())
    first, back = tensors(folder), tensors(tmp_path / "back")
    assert first.keys() == back.keys()
    for name, tensor in back.items():
        assert tensor.dtype == torch.bfloat16
        if narrow[name].dtype == FP8:
            assert torch.equal(tensor, dequantize(narrow[name], narrow[scale_name(name)]).bfloat16())
            error = (tensor.float() - first[name].float()).norm() / first[name].float().norm()
            assert 0 < error < 0.04  # half a step of three bits of mantissa, and BF16
        else:
            assert torch.equal(tensor, first[name])


@pytest.mark.parametrize("to", ["hf", "compressed-tensors"])
def test_what_is_fp8_is_kept(tmp_path, folder, to):
    main(["quantize", str(folder), str(tmp_path / "fp8")])
    assert main(["convert", str(tmp_path / "fp8"), str(tmp_path / "again"), "--to", to]) == 0
    assert same(tensors(tmp_path / "fp8"), tensors(tmp_path / "again"))


def test_fp8_of_meta_becomes_a_compressed_tensors_folder(tmp_path, folder):
    main(["quantize", str(folder), str(tmp_path / "fp8")])
    assert main(["convert", str(tmp_path / "fp8"), str(tmp_path / "meta"), "--to", "meta"]) == 0
    assert main(["convert", str(tmp_path / "meta"), str(tmp_path / "again"), "--to", "compressed-tensors"]) == 0
    assert same(tensors(tmp_path / "fp8"), tensors(tmp_path / "again"))


def test_fp8_to_gguf_is_widened_and_said(tmp_path, folder, capsys):
    main(["quantize", str(folder), str(tmp_path / "fp8")])
    assert main(["convert", str(tmp_path / "fp8"), str(tmp_path / "m.gguf"), "--to", "gguf"]) == 0
    assert "BF16" in capsys.readouterr().err
    main(["convert", str(tmp_path / "fp8"), str(tmp_path / "wide"), "--to", "hf", "--dtype", "bf16"])
    wide, found = tensors(tmp_path / "wide"), tensors(tmp_path / "m.gguf")
    assert all(torch.equal(found[name].bfloat16(), tensor) for name, tensor in wide.items())


def test_transformers_reads_both_ends_alike(tmp_path, folder):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors", reason="transformers reads FP8 folders with compressed-tensors")
    main(["convert", str(folder), str(tmp_path / "fp8"), "--to", "compressed-tensors"])
    main(["convert", str(tmp_path / "fp8"), str(tmp_path / "back"), "--to", "hf", "--dtype", "bf16"])
    tokens = torch.arange(12)[None]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    ours = load_model(tmp_path / "back")
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, ours.logits(ours(tokens)), rtol=1e-5, atol=1e-5)


def test_a_dtype_beside_fp8_is_refused(tmp_path, folder):
    arguments = ["convert", str(folder), str(tmp_path / "x"), "--to", "compressed-tensors", "--dtype", "f16"]
    assert main(arguments) == SettingError.exit_code


@pytest.mark.parametrize(
    ("to", "setting"),
    [
        ("hf", ["--model-parallel", "2"]),
        ("compressed-tensors", ["--model-parallel", "2"]),
        ("hf", ["--shard-gb", "nan"]),
        ("hf", ["--shard-gb", "-1"]),
    ],
)
def test_settings_that_would_have_no_effect_are_refused(tmp_path, folder, capsys, to, setting):
    assert main(["convert", str(folder), str(tmp_path / "x"), "--to", to, *setting]) == SettingError.exit_code
    assert setting[0] in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_fp8_folders_are_cut_into_files_too(tmp_path, folder):
    arguments = ["--to", "compressed-tensors", "--shard-gb", "0.00001"]
    assert main(["convert", str(folder), str(tmp_path / "new"), *arguments]) == 0
    assert main(["convert", str(tmp_path / "new"), str(tmp_path / "kept"), *arguments]) == 0
    assert len(list((tmp_path / "new").glob("model-*"))) == len(list((tmp_path / "kept").glob("model-*"))) > 3
    assert same(tensors(tmp_path / "new"), tensors(tmp_path / "kept"))
