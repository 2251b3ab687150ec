"""`herd debug compare`: plans that compute the same, and the first tensor in which rounding shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from train_models import tiny_model

from herd.cli import main
from herd.errors import HerdError
from herd.weights.hf import save_model

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def test_plans_differ_by_rounding_only_and_the_first_tensor_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(vocab_size=51, n_layers=3, n_heads=4, n_kv_heads=2, dim=32)
    save_model(tmp_path / "model", model, model.config, dtype=torch.float32, herd={})
    plans = ["dp=1", "pp=2", "tp=2"]
    code = main(["debug", "compare", *plans, "--model", str(tmp_path / "model"), "--tolerance", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    assert len(lines) == 2
    assert "dp=1 and pp=2: alike within 0 in" in lines[0]  # stages compute what one process computes, in its order
    found = re.search(r"dp=1 and tp=2 differ first at step 1, .*: by \S+, (\S+) of its largest value", lines[1])
    assert found, lines[1]
    assert float(found[1]) < 1e-5
    broken = main(["debug", "compare", "dp=1", "tp=2,dp=3", "--model", str(tmp_path / "nothing")])
    assert broken == HerdError.exit_code
    assert "dp=1 failed with exit code" in capsys.readouterr().err
