"""`herd plan --measure`: a machine that can be planned for, and read again."""

from pathlib import Path

import pytest

from herd.cli import main
from herd.commands import plan_measure
from herd.scaling.plan.hardware import find_gpu
from herd.scaling.plan.network import find_network


@pytest.mark.slow
@pytest.mark.distributed
def test_a_measured_machine_is_planned_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_measure, "cores", lambda: 2)
    path = tmp_path / "machine.json"
    assert main(["plan", "--measure", str(path)]) == 0
    gpu, network = find_gpu(str(path)), find_network(str(tmp_path / "machine.network.json"))
    assert gpu.measured
    assert gpu.node == 2
    sizes = [point.size for point in gpu.measured.products]
    assert sizes == sorted(sizes)
    assert set(gpu.measured.overhead) == {"plain", "keep", "reshard", "tp", "cp", "pp"}
    assert network.link_latency > 0
    assert main(["plan", "nano", "--gpu", str(path), "--gpus", "2"]) == 0
    assert "2 cpu" in capsys.readouterr().out
