"""Tasks over units, in this process, in several, or on a cluster: the same function of (job, number) each time.

A task writes its result whole or not at all and does nothing when it stands, so any of them may be done twice, by
anyone, in any order. That is all that a cluster is asked for; it shares the folders.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any, Self

from herd.corpus.engine.job import Job
from herd.errors import ArtifactError, HerdError, MissingExtraError, SettingError

Task = Callable[[Job, int], None]
Done = Callable[[int], None]
_DEATHS = 3  # of workers; then what they worked at is named
RUNNERS = ("processes", "daft", "ray")


class Workers:
    """Who does tasks; use it as a context. Processes start once and serve all passes."""

    def __init__(self, job: Job, workers: int, runner: str = "processes") -> None:
        if runner not in RUNNERS:
            raise SettingError(f"there is no runner '{runner}'", where="runner", mend="one of: " + ", ".join(RUNNERS))
        self._job, self._workers, self._runner = job, workers, runner
        self._pool: ProcessPoolExecutor | None = None

    def run(self, task: Task, numbers: Sequence[int], done: Done) -> None:
        """`task(job, number)` for each; `done(number)` is called here as each one ends."""
        if self._runner != "processes":
            _as_dataframe(task, self._job.shipped(), numbers, self._workers, self._runner, done)
        elif self._workers == 1:
            for number in numbers:
                task(self._job, number)
                done(number)
        else:
            self._in_processes(task, numbers, done)

    def _in_processes(self, task: Task, numbers: Sequence[int], done: Done) -> None:
        """A worker that dies (no memory, a crash in a library) takes its pool with it: what was not done is tried
        again."""
        job, left = self._job.shipped(), set(numbers)
        for _ in range(_DEATHS):
            pool = self._opened()
            try:
                futures = {pool.submit(task, job, number): number for number in sorted(left)}
                for future in as_completed(futures):
                    future.result()
                    left.discard(futures[future])
                    done(futures[future])
                return
            except BrokenProcessPool:
                self._close()
        names = ", ".join(job.source.name(number) for number in sorted(left)[: self._workers])
        raise ArtifactError(
            f"worker processes died {_DEATHS} times, without a word; what they were at: {names}",
            where=str(job.work),
            mend="see whether memory ran out (fewer --workers), and run the same command again: it goes on from there",
        )

    def _opened(self) -> ProcessPoolExecutor:
        if self._pool is None:  # spawned, not forked: libraries here have threads
            self._pool = ProcessPoolExecutor(self._workers, mp_context=multiprocessing.get_context("spawn"))
        return self._pool

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()


def _as_dataframe(task: Task, job: Job, numbers: Sequence[int], workers: int, runner: str, done: Done) -> None:
    """A dataframe of units through one function: Daft's own runner, or the Ray cluster that it is told of."""
    daft = _daft(runner)

    class Run:
        def __init__(self) -> None:  # once in a worker
            self.task, self.job = task, job

        def __call__(self, units: Any) -> list[int]:
            numbers: list[int] = units.to_pylist()
            for number in numbers:
                self.task(self.job, number)
            return numbers

    apart = runner == "daft"  # Ray's workers are processes already
    run = daft.udf(return_dtype=daft.DataType.int64(), batch_size=1, concurrency=workers, use_process=apart)(Run)
    units = daft.from_pydict({"unit": list(numbers)})
    if runner == "ray":  # its partitions are what is sent to a node
        units = units.into_partitions(len(numbers))
    try:
        for row in units.select(run(units["unit"]).alias("unit")).iter_rows():
            done(int(row["unit"]))
    except Exception as error:  # the library wraps what a task has raised in errors of its own
        if isinstance(error, HerdError):
            raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(
            f"a unit failed under {runner}: {said[-1][:300]}",
            where=str(job.work),
            mend="see the cluster's log; run again",
        ) from error


def _daft(runner: str) -> Any:
    """The library, told who runs; it can be told once in a process."""
    try:
        daft: Any = import_module("daft")
    except ImportError as error:
        raise MissingExtraError("daft", "corpus") from error
    if runner == "ray":
        try:
            ray: Any = import_module("ray")
        except ImportError as error:
            raise MissingExtraError("ray", "corpus") from error
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
    name = {"daft": "native", "ray": "ray"}[runner]
    if _told.get("runner", name) != name:
        raise SettingError(f"this process runs Daft on '{_told['runner']}'", where="runner", mend="start another")
    if not _told:
        _told["runner"] = name
        daft.set_runner_ray() if runner == "ray" else daft.set_runner_native()
    return daft


_told: dict[str, str] = {}
