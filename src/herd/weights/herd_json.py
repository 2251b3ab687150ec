"""herd.json, which lies beside the weights in every folder that herd writes: what they were made from, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from herd.files import read_json


def herd_json(folder: Path) -> dict[str, Any]:
    """What a folder's herd.json says; empty where there is none, or none of ours. FormatError where it is no JSON."""
    path = folder / "herd.json"
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
