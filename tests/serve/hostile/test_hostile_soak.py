"""The load of `python -m bench soak` for a few seconds: nobody is forgotten, nothing is left over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_the_server_outlives_forty_clients_of_which_some_are_hostile() -> None:
    command = [sys.executable, "-m", "bench.soak", "--seconds", "10", "--clients", "40", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PASSED" in done.stderr
    assert json.loads(done.stdout)["herd"] > 0, done.stdout  # answers a second
