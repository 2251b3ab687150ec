"""Fixtures of the training room; its small models and data are in train_models.py."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
