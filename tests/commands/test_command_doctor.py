"""herd doctor: facts of this machine, and the sizes that the released models have in each format."""

import importlib.util

import pytest

from herd import devices
from herd.cli import main
from herd.commands import doctor, rates
from herd.llama.config import llama31_8b, llama31_405b


def test_sizes_are_those_of_the_files():
    # the released safetensors, and what herd quantize and herd convert made of that shape (docs/adopting.md)
    assert doctor.model_bytes(llama31_8b()) == {"bf16": 16_060_522_496, "fp8": 10_779_631_616, "q8_0": 8_532_934_656}
    assert doctor.model_bytes(llama31_405b())["bf16"] == 811_706_777_600


def test_it_prints_what_the_machine_has(capsys, monkeypatch):
    monkeypatch.setattr(rates, "reading_rate", lambda: 20e9)
    monkeypatch.setattr(rates, "matrix_rate", lambda dtype: 3e11)
    monkeypatch.setattr(devices, "free_memory", lambda device: 12 * 10**9)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for word in ("machine ", "torch ", "device ", "kernels ", "reads       20.0 GB/s", "float32 300 GFLOP/s"):
        assert word in said
    assert "bf16   16.1 GB more than is free" in said
    assert "fp8    10.8 GB 1.9 tokens/s" in said
    assert "q8_0    8.5 GB 2.3 tokens/s" in said


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else found(name))
    assert doctor.extras()["gguf"] == "missing, pip install 'herd[gguf]'"


@pytest.mark.parametrize("measure", [rates.reading_rate, rates.matrix_rate])
def test_rates_are_measured(measure):
    assert 1e8 < measure() < 1e16
