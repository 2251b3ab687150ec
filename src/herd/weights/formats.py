"""The protocol of a format of model files. `registry.py` lists them; each lives in a `format_NAME.py`.

    class Mine:
        name, about, single_file, keeps_fp8 = "mine", "what it is", False, False
        def detect(self, path): ...      # cheap: names and magic numbers only
        def open(self, path): ...        # -> StoredModel; reads headers only
        def write(self, model, out, options, progress): ...

A format never thinks about atomicity: it fills the folder that `convert.py` gives it and says which files are whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from herd.devices import GIB as GIB
from herd.progress import Progress
from herd.weights.staging import Staging
from herd.weights.stored import StoredModel


@dataclass(frozen=True)
class WriteOptions:
    """What a user may choose; a format refuses with a SettingError what it cannot do."""

    dtype: str = ""  # bf16, f16, f32, q8_0, fp8, ...; "": as the tensors are
    model_parallel: int = 1  # files that the model is cut into, where the format cuts (meta)
    max_shard_bytes: int = 5 * GIB


class Format(Protocol):
    """One way to lay a model on disk."""

    @property
    def name(self) -> str:
        """The word after `--to`."""

    @property
    def about(self) -> str:
        """One line for the help."""

    @property
    def single_file(self) -> bool:
        """A file, not a folder: `write` leaves exactly one file in its folder."""

    @property
    def keeps_fp8(self) -> bool:
        """FP8 matrices and their scales are written as they are; else `convert` widens them to BF16 first."""

    def detect(self, path: Path) -> bool:
        """Whether `path` looks like this format. No exception, whatever lies there."""

    def open(self, path: Path) -> StoredModel:
        """Headers only. FormatError or ArtifactError for files that are cut short or contradict each other."""

    def write(self, model: StoredModel, out: Staging, options: WriteOptions, progress: Progress) -> None:
        """Fill `out.path`, one tensor in memory at a time; ask `out` what a run before this one has finished."""
