"""How a stage hands over a model: the folder is written whole beside the output and its files are moved in; what its
training has written down goes beside them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from herd.stages import Context
from herd.train.faults.runlog import NAME as RUN_LOG


@contextmanager
def model_output(out: Path) -> Iterator[Path]:
    """A name for a model folder; what was written there when the block ends well becomes files of `out` itself.

    Models are saved by renaming a whole folder, and a stage's `out` stands already: it cannot be renamed onto.
    """
    folder = out / ".model"
    yield folder
    for file in folder.iterdir():
        shutil.move(file, out / file.name)
    folder.rmdir()


def keep_history(ctx: Context) -> None:
    """The curve and the log of the stage's training, beside the model that it made."""
    for name in ("history.jsonl", RUN_LOG):
        if (ctx.scratch / "training" / name).exists():
            shutil.copy(ctx.scratch / "training" / name, ctx.out / name)
