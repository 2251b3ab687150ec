"""What every test stands on: one thread, and properties without deadlines, for no test here asserts a time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

# Before torch is imported anywhere: tiny products lose much to threads, above all where the cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

# A shell starts background jobs with Ctrl-C ignored, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("herd", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("herd")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads torch has, for one test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
