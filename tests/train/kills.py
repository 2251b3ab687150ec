"""Runs that are killed, for test_train_kills.py: a program that knows torch, and forks a run for every way to die.

python kills.py FOLDER       prints one JSON line for each death: how it died, whether the resumed run is the same
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from train_models import random_documents, tiny_model, tiny_settings

from herd.train.loop import train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.optimiser import Optimiser
from herd.train.settings import TrainSettings
from herd.train.sources import Batches, TokenStream

CALLS = ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "mkdir"), (os, "unlink"), (shutil, "rmtree"))
DEATHS = 12  # at random times


def one_run(folder: Path, settings: TrainSettings) -> None:
    """Train and leave the weights and the losses as one file."""
    source = Batches(TokenStream(random_documents(20), settings.seq_len, 0), settings)
    model = tiny_model()
    result = train(model, LanguageModelling(), source, settings, folder / "run")
    torch.save(([p.detach() for p in model.parameters()], result.losses), folder / "result.pt")


def forked(work: Callable[[], None]) -> int:
    """The process id of a child that does `work` and nothing else."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def ends(child: int) -> str:
    status = os.waitpid(child, 0)[1]
    return "killed" if os.WIFSIGNALED(status) else "done" if status == 0 else "failed"


def dies_at(call: int, work: Callable[[], None]) -> None:
    """Do `work` and be killed just before the `call`th of the calls that change what is on the disk."""
    seen = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def stand_in(*arguments: object, **named: object) -> object:
            nonlocal seen
            seen += 1
            if seen == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return stand_in

    for module, name in CALLS:
        setattr(module, name, counted(getattr(module, name)))
    work()


def same(one: Path, other: Path) -> bool:
    (weights, losses), (others, other_losses) = torch.load(one / "result.pt"), torch.load(other / "result.pt")
    return losses == other_losses and all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def say(folder: Path, straight: Path, settings: TrainSettings, died: str) -> None:
    """Resume what was killed, and tell whether it ended as the run that never was."""
    resumed = ends(forked(lambda: one_run(folder, settings)))
    left = sorted(path.name for path in (folder / "run" / "checkpoints").iterdir())
    print(json.dumps({"died": died, "end": resumed, "same": same(folder, straight), "left": left}), flush=True)


def warm_up() -> None:
    """Whatever the first update imports, before the forks: no backward, whose threads would not be forked."""
    optimiser = Optimiser(tiny_model(), tiny_settings())
    for param in optimiser.masters.values():
        param.grad = torch.zeros_like(param)
    optimiser.step(0.0)


def main(place: Path) -> None:
    torch.set_num_threads(1)
    warm_up()
    settings = tiny_settings(steps=6, anneal_steps=4, checkpoint_every_steps=2, keep=1)
    straight = place / "straight"
    assert ends(forked(lambda: one_run(straight, settings))) == "done"
    call, alive = 1, True
    while alive:
        folder = place / f"call-{call}"
        alive = ends(forked(lambda n=call, at=folder: dies_at(n, lambda: one_run(at, settings)))) == "killed"
        if alive:
            say(folder, straight, settings, f"call {call}")
        call += 1
    often = tiny_settings(steps=60, anneal_steps=20, checkpoint_every_steps=1)
    assert ends(forked(lambda: one_run(place / "often", often))) == "done"
    folder, chance = place / "random", random.Random(5)
    for _ in range(DEATHS):
        child = forked(lambda: one_run(folder, often))
        time.sleep(chance.uniform(0.02, 0.25))
        os.kill(child, signal.SIGKILL)
        if ends(child) == "done":
            shutil.rmtree(folder)
    say(folder, place / "often", often, "at random times")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
