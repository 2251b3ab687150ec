"""The slow look into a model for `herd inspect --values`: every value, and Meta's checksums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from herd.progress import Progress
from herd.weights.stored import StoredModel
from herd.weights.tensors import Entry

_CHUNK = 2**24  # values looked at together


def value_faults(model: StoredModel, progress: Progress) -> Iterator[str]:
    """NaN, infinities and tensors of nothing but zeros; a few rows in memory at a time."""
    total = model.n_bytes
    done = 0
    for entry in model.tensors.values():
        bad, zeros = _odd_values(entry)
        if bad:
            yield f"{entry.name} holds {bad:,} values that are NaN or infinite"
        elif zeros:
            yield f"{entry.name} is all zeros"
        done += entry.n_bytes
        progress.update(done / 1e9, total / 1e9, "GB")


def _odd_values(entry: Entry) -> tuple[int, bool]:
    """How many values are not finite, and whether all are zero."""
    bad, zeros = 0, True
    flat = entry.values().flatten()
    for start in range(0, len(flat), _CHUNK):
        wide = flat[start : start + _CHUNK].float()
        bad += int((~torch.isfinite(wide)).sum())
        zeros = zeros and not bool(wide.any())
    return bad, zeros


def checklist_faults(path: Path) -> Iterator[str]:
    """Meta's downloads carry MD5 sums in checklist.chk."""
    checklist = path / "checklist.chk"
    if not checklist.is_file():
        return
    for line in checklist.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{32}) [ *]?([\w.-]+)", line.strip())
        if match and (path / match[2]).is_file():
            with open(path / match[2], "rb") as handle:
                found = hashlib.file_digest(handle, "md5").hexdigest()
            if found != match[1]:
                yield f"{match[2]} is not the file that checklist.chk describes"
