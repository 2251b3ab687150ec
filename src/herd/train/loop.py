"""The one training loop. Objectives say what the loss is, sources what it is computed on; the loop owns the mean.

    result = train(model, LanguageModelling(), source, settings, folder, progress)

The model is trained in place, where it is. A run that was killed goes on from `folder/checkpoints`, on any device. On
the CPU it ends in the same weights, bit for bit, as one that was never stopped: batches are a function of the step, and
checkpoints only look. On a GPU, and from one device to another, it ends in the same up to rounding: some of torch's
CUDA kernels add in no fixed order.
With a `mesh` (parallel/mesh.py) all of its processes call this together, each with the same model, and share the work:
the same run as in one process, up to rounding. What the loop does is the same; who does it is the `Worker`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from herd.devices import memory_errors
from herd.errors import InputError
from herd.progress import Progress, Silent
from herd.train.batch import Batch, BatchSource
from herd.train.faults.attend import attend
from herd.train.faults.causes import LOST, CorruptWeights, cause_of, lost_peer
from herd.train.faults.settings import FaultSettings
from herd.train.history import TrainResult
from herd.train.interrupts import Interrupts, Stopped
from herd.train.objectives.terms import Objective
from herd.train.run import Run, Validate
from herd.train.settings import TrainSettings
from herd.train.worker import Worker, measured
from herd.weights.stored import SavesFiles

if TYPE_CHECKING:
    from herd.train.parallel.mesh import Mesh


def train(
    model: nn.Module,
    objective: Objective,
    source: BatchSource,
    settings: TrainSettings,
    folder: Path,
    progress: Progress | None = None,
    *,
    validate: Validate | None = None,
    tokenizer: SavesFiles | None = None,
    mesh: Mesh | None = None,
    weights: Iterable[tuple[str, Tensor]] | None = None,
    begin: Path | None = None,
    faults: FaultSettings | None = None,
) -> TrainResult:
    """Train `model` in place for `settings.steps` updates; `folder` holds history and checkpoints.

    `validate(model)` is called every `settings.validate_every` steps and at the end; its figures enter the history.
    `begin` holds a checkpoint of an earlier phase: a fresh run takes its weights and AdamW's moments from there.
    `tokenizer` lies in the checkpoints, each of which `herd convert` makes a model folder of.
    On a mesh `model` may be on the meta device: `weights` are then its parameters, one after the other, of which each
    process keeps its share, and what was learnt is in the checkpoints only. A model that has values gets its own back.
    `faults`: what is looked for on a mesh (docs/faults.md); None: what HERD_FAULTS says.
    Raises TrainingError (not finite, spike), StorageError (disk full), DeviceError (out of memory), ArtifactError (no
    usable checkpoint), SettingError (a checkpoint of another run), Stopped (a KeyboardInterrupt) after Ctrl-C or
    SIGTERM, with a checkpoint.
    """
    with memory_errors(less_memory(settings)):
        worker = _worker(model, objective, settings, mesh, weights)
        said = (progress or Silent()) if worker.is_first else Silent()
        hook = worker.hook = attend(Path(folder), worker, faults or FaultSettings.of_environment(), said)
        error: BaseException | None = None
        try:
            run = Run(model, worker, objective, source, settings, Path(folder), said, validate, tokenizer, begin)
            try:
                return _through(run, settings)
            finally:
                run.history.close()
                run.checkpoints.close(run.progress)
        except BaseException as stopped:
            error = stopped
            if worker.world > 1 and cause_of(stopped) == LOST:
                raise lost_peer(stopped) from stopped
            raise
        finally:
            hook.end(error)


def _through(run: Run, settings: TrainSettings) -> TrainResult:
    """All steps that are left, and the end."""
    run.hook.begin(run.step)
    try:
        with Interrupts() as interrupts:
            try:
                _steps(run, settings, interrupts)
            except BaseException as error:
                run.hook.failed(error)  # before torchrun's SIGTERM can end what another rank's end has stopped
                raise
        return run.finish()
    except CorruptWeights as error:
        if error.at_rest:
            run.forget_checkpoint()
        raise


def _steps(run: Run, settings: TrainSettings, interrupts: Interrupts) -> None:
    while run.step < settings.steps:
        run.one_step(interrupts)
        if run.asked_to_stop or (run.worker.world == 1 and interrupts.asked):
            run.save_checkpoint()
            run.checkpoints.wait()
            raise Stopped(interrupts.signal)
        run.save_checkpoint_if_due()


def less_memory(settings: TrainSettings) -> str:
    """What to change about a run that is out of memory."""
    now = settings.microbatch_tokens or settings.batch_tokens
    lower = f"lower microbatch_tokens (now {now:,}), " if now > settings.seq_len else "lower seq_len, "
    return lower + "recompute=layer, or train an adapter over a base in fp8 or int8"


def _worker(
    model: nn.Module,
    objective: Objective,
    settings: TrainSettings,
    mesh: Mesh | None,
    weights: Iterable[tuple[str, Tensor]] | None,
) -> Worker:
    if mesh is None:
        return Worker(model, settings)
    from herd.train.parallel.worker import MeshWorker  # torch's engine for many processes takes a second to import

    return MeshWorker.of(model, objective, settings, mesh, weights)


def mean_loss(model: Any, objective: Objective, batches: list[Batch]) -> float:
    """The objective's mean over batches, without training: the validation loss."""
    sums = measured(model, objective, batches) if batches else {"count": 0.0}
    if not sums["count"]:
        raise InputError("nothing to validate on: no token or pair counts in these batches")
    return sums["total"] / sums["count"]
