"""A round's sub-steps on disk: done once, found again.

    steps = Steps(folder, key={...}, progress)
    selected = steps.run("select", make=write_selection, load=read_selection)

A sub-step fills a folder aside, which takes its name when it is whole; afterwards it is only loaded. What a step
returns is always what was loaded, so a round that was killed between two steps goes on with the same values as one
that was not. Trainings keep their checkpoints in `scratch(name)` until their step is done.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from herd.config import fingerprint
from herd.errors import ArtifactError
from herd.files import atomic_folder, read_json, write_json
from herd.llama.model import Llama
from herd.progress import Progress
from herd.text.tokenizer import Tokenizer
from herd.weights.hf import load_model, save_model

T = TypeVar("T")


class Steps:
    """The sub-steps of one round in `folder`. `key` is everything that decides what they produce."""

    def __init__(self, folder: Path, key: Any, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        name, identity = folder / "key.json", fingerprint(key)
        if not name.exists():
            write_json(name, {"key": identity})
        elif read_json(name).get("key") != identity:
            raise ArtifactError(
                "this folder holds a round with other models, prompts or settings",
                where=str(folder),
                mend="give each round a folder of its own, or delete this one",
            )

    def run(self, name: str, make: Callable[[Path], None], load: Callable[[Path], T]) -> T:
        """Let `make` fill the folder of step `name` unless that was done before; then load it."""
        done = self.folder / name
        if done.exists():
            self.progress.note(f"{name}: found done")
        else:
            with atomic_folder(done) as aside:
                make(aside)
            shutil.rmtree(self.scratch(name), ignore_errors=True)
        return load(done)

    def scratch(self, name: str) -> Path:
        """A folder that survives a kill, for what step `name` needs to go on inside itself."""
        return self.folder / "work" / name


def save_policy(folder: Path, model: Llama, tokenizer: Tokenizer, report: dict[str, Any]) -> None:
    """A Hugging Face folder in float32, so that the next step starts from the very weights of this one."""
    save_model(
        folder / "model", model, model.config, tokenizer=tokenizer, dtype=torch.float32, herd=report, instruct=True
    )
    write_json(folder / "report.json", report)


def load_policy(folder: Path, device: torch.device) -> tuple[Llama, dict[str, Any]]:
    return load_model(folder / "model", dtype=torch.float32, device=device), read_json(folder / "report.json")
