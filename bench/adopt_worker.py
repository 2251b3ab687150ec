"""One side of `bench.adopt`, in a process of its own: waits for a line, does a step, tells its rate and its loss.

    python -m bench.adopt_worker SIDE FOLDER WAY DATA DTYPE STEPS

SIDE herd or trl; FOLDER holds the model `m` and the untrained adapter `a`; WAY lora (SFT through an adapter), weights
(SFT of every weight) or dpo (through an adapter); DATA even (all rows of one length) or ragged. Here are the data and
the herd side; TRL's is in `adopt_trl.py`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.paced import Paced, peak_mib, tell

LENGTH, BATCH, VOCABULARY, RANK, ALPHA = 512, 8, 4096, 16, 32
RATE, BETA2, BETA = 3e-4, 0.95, 0.1  # of AdamW on both sides, constant; of DPO
EVEN = 128  # tokens of each prompt and each answer of even pairs: rows of 256
COUNT = 400


@dataclass(frozen=True)
class Job:
    folder: Path
    way: str
    data: str
    dtype: str
    steps: int


def conversations(data: str) -> list[list[int]]:
    """Rows of ids: all of 512 tokens, or of 40 to 512."""
    rng = np.random.default_rng(0)
    lengths = np.full(COUNT, LENGTH) if data == "even" else rng.integers(40, LENGTH + 1, COUNT)
    return [rng.integers(1, VOCABULARY, int(length)).tolist() for length in lengths]


def pairs(data: str) -> list[tuple[list[int], list[int], list[int]]]:
    """(prompt, chosen, rejected) as ids: 128 each, or of 16 to 128, and answers of 16 to 384."""
    rng = np.random.default_rng(0)

    def ids(most: int) -> list[int]:
        length = EVEN if data == "even" else int(rng.integers(16, most + 1))
        found: list[int] = rng.integers(1, VOCABULARY, length).tolist()
        return found

    return [(ids(128), ids(384), ids(384)) for _ in range(COUNT)]


def herd_order() -> list[int]:
    """The order in which herd's loop takes the items: the other side is given them so."""
    from herd.train.order import permutation

    return [int(index) for index in permutation(COUNT, 0, 0)]


def herd(job: Job) -> None:
    import torch

    from herd.train.loop import train
    from herd.train.settings import TrainSettings
    from herd.weights.hf import load_model
    from herd.weights.peft import load_adapter

    rows = 2 * BATCH if job.way == "dpo" else BATCH
    settings = TrainSettings(
        steps=job.steps,
        batch_tokens=rows * LENGTH,
        seq_len=LENGTH,
        peak_lr=RATE,
        schedule="constant",
        warmup_steps=0,
        beta2=BETA2,
        weight_decay=0.0,
        checkpoint_every_seconds=0,
        dtype="bfloat16" if job.dtype == "bfloat16" else "float32",
    )
    narrow = job.dtype == "bfloat16" and job.way != "weights"
    model = load_model(job.folder / "m", dtype=torch.bfloat16 if narrow else torch.float32)
    if job.way != "weights":
        load_adapter(job.folder / "a", model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
    objective, source, tokens, extra = _dpo(job, model, settings) if job.way == "dpo" else _sft(job, model, settings)
    with tempfile.TemporaryDirectory() as scratch:
        paced = Paced(tokens, extra)
        paced.begin()
        train(model.train(), objective, source, settings, Path(scratch), paced)
    tell(peak_mib=peak_mib())


def _sft(job: Job, model: Any, settings: Any) -> tuple[Any, Any, list[int], float]:
    import torch

    from herd.text.chat import Dialogue
    from herd.train.objectives.language_modelling import SupervisedFinetuning
    from herd.train.sources import Batches, PackedRows, validation_batches

    items = [Dialogue(ids, [True] * len(ids), ["content"] * len(ids)) for ids in conversations(job.data)]
    first = PackedRows([items[index] for index in herd_order()[:BATCH]], LENGTH, 0)
    objective = SupervisedFinetuning()
    with torch.no_grad():
        terms = [objective.terms(model, batch) for batch in validation_batches(first, first.n_rows, BATCH)]
    tell(check=[float(sum(each.total for each in terms) / sum(each.count for each in terms))])
    source = Batches(PackedRows(items, LENGTH, 0), settings)
    weights = [batch.weights_BT for step in range(job.steps) for batch in source.batch(step)]
    return objective, source, [int(each.sum()) for each in weights], 0.0


def _dpo(job: Job, model: Any, settings: Any) -> tuple[Any, Any, list[int], float]:
    """The reference is computed here once, and its time is counted in every step: the peer computes it there."""
    from herd.text.chat import Dialogue
    from herd.train.objectives.dpo import DirectPreference, reference_logprobs
    from herd.train.pairs import PairBatches, Preference

    def side(prompt: list[int], answer: list[int]) -> Dialogue:
        kinds = [*["header"] * len(prompt), *["content"] * len(answer)]
        return Dialogue([*prompt, *answer], [kind == "content" for kind in kinds], kinds)  # type: ignore[arg-type]

    items = [Preference(side(p, chosen), side(p, rejected), len(p)) for p, chosen, rejected in pairs(job.data)]
    seen = herd_order()[: BATCH * job.steps]
    started = time.perf_counter()
    found = reference_logprobs(model, [items[index] for index in seen], settings.batch_tokens)
    extra = (time.perf_counter() - started) / job.steps
    tell(check=[float(value) for value in found[:BATCH].mean(0)])
    reference = found.new_zeros(COUNT, 2)
    reference[seen] = found
    tokens = [
        sum(len(part.ids) for index in seen[step * BATCH : (step + 1) * BATCH] for part in items[index].sides)
        for step in range(job.steps)
    ]
    return DirectPreference(BETA, 0.0), PairBatches(items, settings, reference), tokens, extra


if __name__ == "__main__":
    side, folder, way, data, dtype, steps = sys.argv[1:]
    job = Job(Path(folder), way, data, dtype, int(steps))
    if side == "herd":
        herd(job)
    else:
        from bench.adopt_trl import trl

        trl(job)
