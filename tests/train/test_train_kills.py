"""kill -9 at every instant of writing a checkpoint: the run goes on to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).with_name("kills.py")


@pytest.mark.slow
def test_killed_at_any_call_to_the_disk_or_any_time_a_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Before each fsync, rename and removal of three checkpoints, and a dozen times in a row at random."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, KILLS, tmp_path], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    deaths = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(deaths) > 30  # the calls are counted while they happen
    assert deaths[-1]["died"] == "at random times"
    assert [death for death in deaths if death["end"] != "done" or not death["same"]] == []
    kept = (["step-6"], ["step-4", "step-6"])  # killed between the last checkpoint and the removal of the one before
    assert [death for death in deaths[:-1] if death["left"] not in kept] == []
