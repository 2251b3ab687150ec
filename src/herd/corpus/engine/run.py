"""A curation from end to end: mark, decide, round by round, finish, and the report. Each of them goes on where it was.

    run(Job(Places.of(["crawl/"]), CurateSettings(), out, out / "work"), workers=2)

Killed at any moment and run again it makes what is missing, and the same bytes. What it needs to know stands in the
files: every unit's result carries a hash of the settings, of this code's version and of what it was made from.
"""

from __future__ import annotations

import time
from dataclasses import asdict

from herd.corpus.engine.decisions import decide
from herd.corpus.engine.files import locked, sweep
from herd.corpus.engine.job import Job
from herd.corpus.engine.passes import finish, mark
from herd.corpus.engine.tally import total
from herd.corpus.engine.workers import Task, Workers
from herd.corpus.report import CurationReport
from herd.errors import InputError, NoEffectError
from herd.files import make_folder, read_json, write_json
from herd.progress import Progress

_REPORTED_UNREADABLE = 200


def run(job: Job, progress: Progress, *, workers: int = 1, runner: str = "processes") -> CurationReport:
    """Writes kept/, removed/, unreadable/ (a file a unit), counts/ and report.json into `job.out`.

    Raises InputError when no document comes, NoEffectError when a step removes every document that reaches it (the
    files are written before, so that the reasons can be read).
    """
    with locked(job.work), Workers(job, workers, runner) as who:
        return _run(job, progress, who)


def _run(job: Job, progress: Progress, workers: Workers) -> CurationReport:
    for folder in (job.out, job.work):
        make_folder(folder)
        sweep(folder)
    last = len(job.rounds) - 1
    if not len(job.source):
        raise InputError("there is no document to curate", where=str(job.out), mend="hand in at least one document")
    if _is_finished(job):
        return _reported(job, progress)
    (job.out / "report.json").unlink(missing_ok=True)  # written last: a folder without it is not finished
    for round_ in range(last):
        _each(MarkRound(round_), job, f"pass {round_ + 1} of {last + 1}", workers, progress)
        if round_ == 0 and not _documents(job):
            raise InputError("there is no document to curate", where=str(job.out), mend=_why_none(job))
        decide(job, round_, progress)
    _each(finish, job, f"pass {last + 1} of {last + 1}", workers, progress)
    _forget_others(job)
    return _reported(job, progress)


class MarkRound:
    """`mark` for one round; a class, so that it can be sent to a worker."""

    def __init__(self, round_: int) -> None:
        self.round = round_

    def __call__(self, job: Job, unit: int) -> None:
        mark(job, self.round, unit)


def _each(task: Task, job: Job, what: str, workers: Workers, progress: Progress) -> None:
    sizes = [job.source.size(unit) for unit in range(len(job.source))]
    whole, ended, started = sum(sizes), 0, time.monotonic()

    def done(unit: int) -> None:
        nonlocal ended
        ended += sizes[unit]
        spent = time.monotonic() - started
        left = spent * (whole - ended) / max(1, ended)
        progress.update(ended, whole, f"bytes, {what}", {"time left": _told(left)})

    workers.run(task, range(len(sizes)), done)


def _told(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _is_finished(job: Job) -> bool:
    """Everything stands already, even if what lay between the passes was removed."""
    paths = [job.out / "counts" / f"{unit:05d}.json" for unit in range(len(job.source))]
    made = [job.fingerprint(len(job.rounds) - 1, unit) for unit in range(len(job.source))]
    return all(path.is_file() and read_json(path)["made"] == one for path, one in zip(paths, made, strict=True))


def _documents(job: Job) -> int:
    return sum(sum(read_json(job.unit_folder(0, unit) / "done.json")["documents"]) for unit in range(len(job.source)))


def _why_none(job: Job) -> str:
    found = [one for unit in range(len(job.source)) for one in read_json(job.unit_folder(0, unit) / "unreadable.json")]
    seen = ", ".join(f"{one['file']}: {one['reason']}" for one in found[:3])
    return "hand in at least one document" + (f" ({len(found)} could not be read: {seen})" if found else "")


def _forget_others(job: Job) -> None:
    """Files of units that are no more: the sources had more of them in an earlier run. And what dead workers left."""
    sweep(job.out)
    for folder in ("kept", "removed", "unreadable", "lineage", "index", "counts"):
        for path in (job.out / folder).iterdir():
            if int(path.name.split(".")[0]) >= len(job.source):
                path.unlink()


def _reported(job: Job, progress: Progress) -> CurationReport:
    units = [read_json(job.out / "counts" / f"{unit:05d}.json") for unit in range(len(job.source))]
    names = [step.name for step in job.steps]
    steps, shares = total(names, [unit["steps"] for unit in units], job.settings.examples)
    came = sum(sum(unit["steps"]["came"].values()) for unit in units)
    left = next((place for place, step in enumerate(steps) if step.documents_in and not step.documents_out), None)
    report = CurationReport(came, steps=steps if left is None else steps[: left + 1], **shares)
    report.documents_out = sum(share.documents for share in report.kept_by_lang.values())
    for unit in units:
        for reason, count in unit["unreadable"].items():
            report.unreadable_by_reason[reason] = report.unreadable_by_reason.get(reason, 0) + count
        report.unreadable += unit["shown"][: _REPORTED_UNREADABLE - len(report.unreadable)]
    report.unreadable_count = sum(report.unreadable_by_reason.values())
    _warn(report, progress)
    write_json(job.out / "report.json", asdict(report))
    if not report.documents_out:
        raise NoEffectError(
            f"the curation step '{report.steps[-1].name}' removed every document",
            where=str(job.out / "removed"),
            mend="read the reasons there, then change the step's thresholds or leave it out of `steps`",
        )
    return report


def _warn(report: CurationReport, progress: Progress) -> None:
    for step in report.steps:
        if step.documents_out == 0:
            report.warnings.append(f"step {step.name} removed all {step.documents_in} documents")
        elif step.documents_out == step.documents_in and not step.edited:
            report.warnings.append(f"step {step.name} removed nothing and changed nothing")
    for warning in report.warnings:
        progress.note(f"curation: {warning}")
