"""One side of `bench.train`, in a process of its own: waits for a line, does a step, tells its rate and its loss.

    python -m bench.train_worker SIDE FOLDER DTYPE STEPS

SIDE herd, or one of `train_peers.py`. FOLDER holds the model `m`, from which every side begins, and `tokens.pt`
[steps, batch, length + 1]: the batches, the same for all. Each side does forward, backward, clipping at 1 and a fused
AdamW step on float32 weights; "bfloat16" computes in it, there by autocast.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.paced import Paced

RATE, BETAS, DECAY = 3e-4, (0.9, 0.95), 0.1  # of AdamW, on all sides, constant


def herd(folder: Path, dtype: str, steps: int) -> None:
    import torch

    from herd.train.batch import Batch
    from herd.train.loop import train
    from herd.train.objectives.language_modelling import LanguageModelling
    from herd.train.settings import TrainSettings
    from herd.train.sources import FixedBatches
    from herd.weights.hf import load_model

    tokens = torch.load(folder / "tokens.pt")
    batch, length = tokens.shape[1], tokens.shape[2] - 1
    places = torch.arange(length).expand(batch, length)
    weights = torch.ones(batch, length)
    source = FixedBatches([[Batch(each[:, :-1], each[:, 1:], weights, None, places)] for each in tokens])
    settings = TrainSettings(
        steps=steps,
        batch_tokens=batch * length,
        seq_len=length,
        peak_lr=RATE,
        schedule="constant",
        warmup_steps=0,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=DECAY,
        checkpoint_every_seconds=0,
        dtype="bfloat16" if dtype == "bfloat16" else "float32",
    )
    model = load_model(folder / "m")
    with tempfile.TemporaryDirectory() as scratch:
        paced = Paced([batch * length] * steps)
        paced.begin()
        train(model.train(), LanguageModelling(), source, settings, Path(scratch), paced)


def main(side: str, folder: Path, dtype: str, steps: int) -> None:
    if side == "herd":
        herd(folder, dtype, steps)
        return
    from bench.train_peers import SIDES

    run: Callable[[Path, str, int], None] = SIDES[side]
    run(folder, dtype, steps)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
