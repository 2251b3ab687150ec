"""The machine as the report names it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from herd.road import machine


def test_this_machine() -> None:
    found = machine.machine()
    assert found.torch.split("+")[0] == torch.__version__.split("+")[0]
    assert found.cores is None or found.cores >= 1
    assert found.memory_bytes is None or found.memory_bytes > 2**27
    assert found.cpu


def test_the_processor_has_its_makers_name(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Fast 9000 @ 3 GHz\nprocessor\t: 1\nmodel name\t: Other\n")
    assert machine._cpu(file) == "Fast 9000 @ 3 GHz"


@pytest.mark.parametrize("content", ["", "model name\t:\n", "Processor: ARMv8\n"])
def test_a_processor_that_is_not_named_is_its_architecture(tmp_path: Path, content: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(content)
    assert machine._cpu(file)
    assert machine._cpu(tmp_path / "missing") == machine._cpu(file)
