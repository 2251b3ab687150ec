"""`herd debug nan CKPT`: the saved batch of a failed step once more, and where values stop being finite."""

from __future__ import annotations

import re
from pathlib import Path

from herd.errors import ArtifactError, InputError
from herd.files import read_json
from herd.train.batch import Batch
from herd.train.guards import read_batches
from herd.train.objectives.distillation import Distillation
from herd.train.objectives.dpo import DirectPreference
from herd.train.objectives.language_modelling import LanguageModelling, SupervisedFinetuning
from herd.train.objectives.terms import Objective

_BATCH = "failed-batch-step"
_OBJECTIVES: tuple[Objective, ...] = (LanguageModelling(), SupervisedFinetuning(), DirectPreference(), Distillation())


def replay_failed(path: Path, batch: Path | None) -> int:
    """Prints what was replayed and where values stop being finite; exit code 0 also when none does."""
    from herd.train.faults.replay import first_not_finite
    from herd.weights.build import load_any

    checkpoint, files = _found(path, batch)
    state = read_json(checkpoint / "state.json")
    objective = next((one for one in _OBJECTIVES if one.name == state["objective"]), None)
    if objective is None:
        raise InputError(f"a step of '{state['objective']}' cannot be replayed", where=str(checkpoint))
    model = load_any(checkpoint).train()
    print(f"weights    {checkpoint}, after {state['step']:,} updates, in float32 on one process")
    for file in files:
        step, batches = read_batches(file)
        tokens = sum(one.n_tokens for one in batches)
        print(f"batch      {file}: step {step:,}, {len(batches)} microbatches, {tokens:,} tokens")
        _warn(step, int(state["step"]))
        origin = first_not_finite(model, objective, batches)
        if origin is None:
            print(
                "finite     every value, forward and backward: weights and batch do not bring it about by themselves.\n"
                "           A passing fault of the machine (`herd debug log`), or rounding in the run's own dtype."
            )
            continue
        print(f"first      {origin}")
        if origin.row >= 0:
            print(f"tokens     {_around(batches[origin.microbatch], origin.row, origin.token)}")
    return 0


def _warn(step: int, updates: int) -> None:
    if step != updates + 1:
        print(f"note       the step failed after {step - 1:,} updates; with these weights it may not fail")


def _around(batch: Batch, row: int, token: int) -> str:
    ids = batch.tokens_BT[row, max(0, token - 4) : token + 1].tolist()
    return f"the ids up to there are {ids}"


def _found(path: Path, batch: Path | None) -> tuple[Path, list[Path]]:
    """The weights and the saved batches: of a training folder, or of a checkpoint in one."""
    if not path.is_dir():
        raise ArtifactError("there is no such folder", where=str(path))
    is_checkpoint = (path / "state.json").is_file()
    folder = path.parent.parent if is_checkpoint else path
    files = [batch] if batch else _newest_batches(folder)
    if not files:
        raise ArtifactError(
            "no step has failed here", where=str(folder), mend="name the file of a saved batch with --batch"
        )
    if is_checkpoint:
        return path, files
    for place in ("failed", "checkpoints"):
        steps = sorted((folder / place).glob("step-*"), key=lambda one: int(one.name.removeprefix("step-")))
        if steps:
            return steps[-1], files
    raise ArtifactError("there are no weights to replay with", where=str(folder), mend="name a checkpoint")


def _newest_batches(folder: Path) -> list[Path]:
    """The batches of the last step that failed, of every rank that saved one."""
    by_step: dict[int, list[Path]] = {}
    for file in sorted(folder.glob(f"{_BATCH}*.safetensors")):
        named = re.match(rf"{_BATCH}(\d+)", file.name)
        if named:
            by_step.setdefault(int(named[1]), []).append(file)
    return by_step[max(by_step)] if by_step else []
