"""A small training that a fault strikes once, for torchrun to start: `faulty_run.py FOLDER PLAN FAULT`.

The faults come from here, not from the product: a source and an objective that stand around the real ones. They strike
rank 1 in the first life of the job, in step STRIKE ("late-flip" a step later, when no sums of weights are kept);
"nan-again" strikes in every life, and of "all" each life has its own fault. "long" and "term" are longer runs, "term" a
slow one. Every rank writes down which rows it was given for which step.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # train_models

import torch
from torch import Tensor, nn
from train_models import VOCABULARY, random_documents, tiny_model, tiny_settings

from herd.errors import HerdError
from herd.train.batch import WHOLE, Batch, Part
from herd.train.faults.settings import FaultSettings
from herd.train.interrupts import Stopped
from herd.train.loop import train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.objectives.terms import LossTerms
from herd.train.parallel.mesh import processes
from herd.train.parallel.plan import parse_plan
from herd.train.sources import Batches, TokenStream

STRIKE, STEPS = 5, 8
ALL = (("kill", 3), ("hang", 4), ("nan", 6), ("told", 7))  # and the step that each strikes in, by the job's lives
RANK, LIFE = int(os.environ.get("RANK", "0")), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
FAULTS = FaultSettings(hang_seconds=5.0, look_seconds=0.01, compare_every=0, slow_window=2, slow_looks=10, slow_times=2)


@dataclass
class Rows:
    """The real source; says which rows it gave, and to whom."""

    rows: Batches
    folder: Path
    step: int = 0

    def batch(self, step: int, part: Part = WHOLE) -> list[Batch]:
        self.step = step + 1
        batches = self.rows.batch(step, part)
        seen = hashlib.sha256(b"".join(one.tokens_BT.numpy().tobytes() for one in batches)).hexdigest()[:12]
        with open(self.folder / f"rows-{RANK}.jsonl", "a") as file:
            file.write(json.dumps([self.step, seen]) + "\n")
        return batches


@dataclass
class Struck:
    """The real objective; strikes before or after it."""

    fault: str
    step: int  # that it strikes in; none is 0
    source: Rows
    name: str = LanguageModelling.name
    unit: str = LanguageModelling.unit
    struck: bool = False

    def terms(self, model: nn.Module, batch: Batch) -> LossTerms:
        now = RANK == 1 and self.source.step == self.step and not self.struck
        if self.fault == "slow" and RANK == 1:
            time.sleep(0.05)
        self.struck |= now
        if now:
            self.strike(model)
        terms = LanguageModelling().terms(model, batch)
        if now and self.fault in ("nan", "nan-again"):
            terms.total.register_hook(lambda gradient: gradient * float("nan"))
        return terms

    def strike(self, model: nn.Module) -> None:
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang":
            time.sleep(600)
        if self.fault == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.fault in ("flip", "late-flip"):
            flip(
                next(param for name, param in model.named_parameters() if name.endswith("layers.1.mlp.up_proj.weight"))
            )
        if self.fault == "told":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.fault == "disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def due(fault: str) -> tuple[str, int]:
    """What strikes in this life of the job, and in which step."""
    if fault == "all":
        return [*ALL, ("none", 0)][LIFE]
    strikes = LIFE == 0 or fault == "nan-again"
    return fault, (STRIKE + (fault == "late-flip")) * strikes


def flip(parameter: Tensor) -> None:
    """One bit of one value of what this rank holds."""
    held = parameter.detach()
    held = held.to_local() if hasattr(held, "to_local") else held
    held.view(torch.int32).view(-1)[3] ^= 1 << 20


def main(folder: Path, plan: str, fault: str) -> None:
    torch.set_num_threads(1)
    settings = tiny_settings(
        steps=40 if fault in ("term", "long") else STEPS, checkpoint_every_steps=2, microbatch_tokens=16
    )
    source = Rows(Batches(TokenStream(random_documents(20), settings.seq_len, 0), settings), folder)
    with processes(parse_plan(plan)) as mesh:
        objective = Struck(*due(fault), source)
        model = tiny_model(vocab_size=VOCABULARY + 2, n_kv_heads=2)
        train(model, objective, source, settings, folder / "run", Print(), mesh=mesh, faults=FAULTS)
        if RANK == 0:
            torch.save([param.detach() for param in model.parameters()], folder / "weights.pt")


class Print:
    def update(self, *told: object) -> None:
        if LIFE == 0 and "term" in sys.argv:
            time.sleep(0.05)  # until the test has sent its signal

    def note(self, text: str) -> None:
        print(f"note: {text}", flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *sys.argv[2:4])
    except HerdError as error:
        print(f"herd: rank {RANK}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Stopped as stopped:
        print(f"herd: rank {RANK}: {stopped}", file=sys.stderr)
        sys.exit(stopped.exit_code)
