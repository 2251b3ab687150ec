"""Why a run stopped, in the words of the paper's table of interruptions (Table 5), as far as a process can tell.

A process sees a signal, an error or a silence; whether a board or a cable was behind it, its machine's logs know.
"""

from __future__ import annotations

from dataclasses import dataclass

from herd.errors import HerdError, StorageError, TrainingError


@dataclass(frozen=True)
class Cause:
    """`category` as in the paper's table; "planned" are the interruptions that somebody asked for."""

    name: str
    category: str


TOLD = Cause("told to stop", "planned")
KILLED = Cause("process killed", "unknown")
HUNG = Cause("rank hung", "unknown")  # the paper counts watchdog timeouts as unknown too
LOST = Cause("connection lost", "network")
CORRUPT = Cause("silent data corruption", "GPU")
NOT_FINITE = Cause("loss or gradient not usable", "unknown")  # not finite, or a spike
STORAGE = Cause("disk full or not writable", "host")
GPU = Cause("faulty GPU", "GPU")
SOFTWARE = Cause("software bug", "dependency")

# Of several ranks' causes the first of these is the run's: what follows from another comes last.
_ORDER = (HUNG, CORRUPT, NOT_FINITE, STORAGE, GPU, SOFTWARE, TOLD, KILLED, LOST)
BY_NAME = {cause.name: cause for cause in _ORDER}


class RankFault(TrainingError):
    """A training error that names the ranks it came from, if it can."""

    def __init__(self, message: str, *, ranks: tuple[int, ...] = (), where: str = "", mend: str = "") -> None:
        super().__init__(message, where=where, mend=mend)
        self.ranks = ranks


class CorruptWeights(RankFault):
    """Weights that are not what an update made of them, or not alike where they should be."""

    at_rest = False  # they changed between two updates, so a checkpoint made since the first may have them


def rank_of_cause(cause: Cause) -> int:
    """How near a cause is to the root of an interruption; the lowest is the nearest."""
    return _ORDER.index(cause)


def cause_of(error: BaseException) -> Cause:
    """The cause that an error of training stands for."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return TOLD
    if isinstance(error, CorruptWeights):
        return CORRUPT
    if isinstance(error, TrainingError):
        return NOT_FINITE
    if isinstance(error, StorageError):
        return STORAGE
    if isinstance(error, HerdError):
        return SOFTWARE
    text = f"{type(error).__name__}: {error}"
    if any(word in text for word in ("gloo", "NCCL", "DistBackendError", "DistNetworkError", "Connection")):
        return LOST
    return GPU if "CUDA error" in text else SOFTWARE


def lost_peer(error: BaseException) -> HerdError:
    """What gloo or NCCL says of a process that has gone, in a sentence."""
    return HerdError(
        "the connection to another process of this job is lost, so this one ends too",
        where=str(error).strip().partition("\n")[0][:200],
        mend="the process that ended first says why; under torchrun the job goes on from its last checkpoint",
    )
