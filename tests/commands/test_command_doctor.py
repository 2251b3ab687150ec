"""herd doctor: facts of this machine, and the sizes that the released models have in each format."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from herd import devices
from herd.cli import main
from herd.commands import doctor, rates
from herd.commands.model_costs import cost_of
from herd.kernels import library
from herd.llama.config import LlamaConfig, llama31_8b, llama31_405b
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.quantize.fp8 import quantize_model
from herd.quantize.settings import POLICIES


def test_sizes_are_those_of_the_files():
    # the released safetensors, and what herd quantize and herd convert made of that shape (docs/adopting.md)
    sizes = {form: cost_of(llama31_8b(), form).stored for form in ("bf16", "fp8", "q8_0")}
    assert sizes == {"bf16": 16_060_522_496, "fp8": 10_779_631_616, "q8_0": 8_532_934_656}
    assert cost_of(llama31_405b(), "bf16").stored == 811_706_777_600


@pytest.mark.parametrize(("form", "policy"), [("fp8", "paper"), ("fp8, all", "all")])
@pytest.mark.parametrize("tied", [False, True])
def test_an_answer_reads_every_matrix_but_of_the_embedding_a_row(form, policy, tied):
    config = LlamaConfig(vocab_size=320, dim=64, n_layers=4, n_heads=4, n_kv_heads=2, ffn_dim=128, tie_embeddings=tied)
    model = Llama(config)
    init_weights(model, seed=0)
    model.bfloat16()
    quantize_model(model, POLICIES[policy])
    kept = model.state_dict()
    cost = cost_of(config, form)
    assert cost.stored == sum(tensor.nbytes for tensor in kept.values())
    if not model.config.tie_embeddings:
        del kept["model.embed_tokens.weight"]
    assert sum(cost.read.values()) == sum(tensor.nbytes for tensor in kept.values())
    assert sum(cost.multiplied.values()) == sum(t.numel() for n, t in kept.items() if t.dim() == 2 and "scale" not in n)


def test_it_prints_what_the_machine_has(capsys, monkeypatch):
    monkeypatch.setattr(rates, "reading_rate", lambda: 20e9)
    monkeypatch.setattr(rates, "matrix_rate", lambda dtype: 3e11)
    measured = {"bf16": rates.Rate(20e9, 3e11), "fp8": rates.Rate(10e9, 6e11), "q8_0": rates.Rate(17e9, 2e11)}
    monkeypatch.setattr(rates, "product_rates", lambda: measured)
    monkeypatch.setattr(devices, "free_memory", lambda device: 12 * 10**9)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for word in (
        "machine ",
        "torch ",
        "device ",
        "kernels ",
        "library ",
        "reads       20.0 GB/s",
        "float32 300 GFLOP/s",
    ):
        assert word in said
    assert "fp8         read at 10.0 GB/s for an answer, multiplied at 600 GFLOP/s for a prompt" in said
    (line,) = [line for line in said.splitlines() if "3.1 8B" in line]
    assert "16.1 GB over what is free" in line
    assert "10.8 GB 1.3 / " in line  # 5.28 GB of FP8 at 10 GB/s and 4.45 GB of BF16 at 20
    assert "8.6 GB 1.3 / 40 " in line  # 7.5 GB of FP8; 15 GFLOP a token at 600
    assert "8.5 GB 2.1 / " in line


def test_it_says_whether_the_library_is_built_and_at_which_level(monkeypatch):
    monkeypatch.setattr(library, "library_path", lambda: None)
    assert library.built().startswith("not built: install a C compiler")
    monkeypatch.undo()
    path, found = library.library_path(), library.kernels()
    if path is None or found is None:
        assert path is None or "runs at torch" in library.built()
    else:
        assert f"runs at {library.LEVELS[found.level]}; this processor has portable" in library.built()


def test_extras_are_those_of_the_package():
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        stated = tomllib.load(file)["project"]["optional-dependencies"]
    modules = {
        name: {re.split(r"[^\w-]", each)[0].replace("-", "_") for each in needs}
        for name, needs in stated.items()
        if name != "dev"
    }
    assert {name: set(each) for name, each in doctor._EXTRAS.items()} == modules


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else found(name))
    assert doctor.extras()["gguf"] == "missing gguf: pip install 'herd[gguf]'"


@pytest.mark.parametrize("measure", [rates.reading_rate, rates.matrix_rate])
def test_rates_are_measured(measure):
    assert 1e8 < measure() < 1e16


def test_rates_of_products_are_measured(monkeypatch):
    monkeypatch.setattr(rates, "_BLOCK", 2**22)
    found = rates.product_rates()
    assert list(found) == ["bf16", "fp8", "q8_0"]
    assert all(1e6 < rate.bytes_per_second < 1e16 and 1e6 < rate.flops < 1e16 for rate in found.values())
