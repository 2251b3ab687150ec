"""Tasks over units, in this process, in several, or on a cluster: the same function of (job, number) each time.

A task writes its result whole or not at all and does nothing when it stands, so any of them may be done twice, by
anyone, in any order. That is all that a cluster is asked for; it shares the folders.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from herd.corpus.engine.job import Job
from herd.errors import ArtifactError, MissingExtraError, SettingError

Task = Callable[[Job, int], None]
Done = Callable[[int], None]
_DEATHS = 3  # of workers; then what they worked at is named
RUNNERS = ("processes", "daft", "ray")


def run_tasks(task: Task, job: Job, numbers: Sequence[int], workers: int, runner: str, done: Done) -> None:
    """Run `task(job, number)` for each; `done(number)` is called here as each one ends."""
    if runner not in RUNNERS:
        raise SettingError(f"there is no runner '{runner}'", where="runner", mend="one of: " + ", ".join(RUNNERS))
    if runner != "processes":
        _as_dataframe(task, job.shipped(), numbers, workers, runner, done)
    elif workers == 1:
        for number in numbers:
            task(job, number)
            done(number)
    else:
        _in_processes(task, job.shipped(), numbers, workers, done)


def _in_processes(task: Task, job: Job, numbers: Sequence[int], workers: int, done: Done) -> None:
    """A worker that dies (no memory, a crash in a library) takes its pool with it: what was not done is tried again."""
    left = set(numbers)
    for _ in range(_DEATHS):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, max(1, len(left))), mp_context=context) as pool:
            futures = {pool.submit(task, job, number): number for number in sorted(left)}
            try:
                for future in as_completed(futures):
                    future.result()
                    left.discard(futures[future])
                    done(futures[future])
                return
            except BrokenProcessPool:
                continue
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    names = ", ".join(job.source.name(number) for number in sorted(left)[:workers])
    raise ArtifactError(
        f"worker processes died {_DEATHS} times, without a word; what they were at: {names}",
        where=str(job.work),
        mend="see whether memory ran out (fewer --workers), and run the same command again: it goes on from there",
    )


def _as_dataframe(task: Task, job: Job, numbers: Sequence[int], workers: int, runner: str, done: Done) -> None:
    """A dataframe of units through one function: Daft's own runner, or the Ray cluster that it is told of."""
    daft = _daft(runner)

    @daft.func(return_dtype=daft.DataType.int64())  # type: ignore[untyped-decorator]
    def run(number: int) -> int:
        task(job, number)
        return number

    units = daft.from_pydict({"unit": list(numbers)}).into_partitions(max(1, min(len(numbers), 4 * workers)))
    for row in units.select(run(units["unit"])).iter_rows():
        done(int(next(iter(row.values()))))


def _daft(runner: str) -> Any:
    try:
        import daft
    except ImportError as error:
        raise MissingExtraError("daft", "corpus") from error
    if runner == "ray":
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "corpus") from error
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        daft.set_runner_ray(noop_if_initialized=True)
    else:
        daft.set_runner_native()
    return daft
