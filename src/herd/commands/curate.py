"""`herd curate`: sources through the curation into a folder; run again it goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from herd.errors import SettingError

if TYPE_CHECKING:
    from herd.corpus.engine.job import Places
    from herd.corpus.report import StepCount


_FEW_BYTES = 8_000_000


@dataclass(frozen=True)
class Asked:
    sources: Sequence[str]
    out: str
    set: Sequence[str] = ()
    workers: int = 0
    runner: str = "processes"
    memory_gb: float = 1.0
    unit_mb: float = 256.0
    keep_work: bool = False
    json: bool = False


def run(asked: Asked) -> int:
    """Curate, and say what is left."""
    from herd.commands.watch_line import Line
    from herd.config import override
    from herd.corpus.engine.job import Job, Places
    from herd.corpus.engine.run import run as curate
    from herd.corpus.settings import MEGABYTE, CurateSettings, ReadSettings

    _check(asked)
    out = Path(asked.out).absolute()  # workers may stand elsewhere
    reading = ReadSettings(unit_bytes=max(1, int(asked.unit_mb * MEGABYTE)))
    source = Places.of(asked.sources, reading)
    settings = override(CurateSettings(), asked.set)
    job = Job(source, settings, out, out / "work", memory=int(asked.memory_gb * 1e9))
    workers = asked.workers or _workers(source)
    with Line(sys.stderr) as line:
        report = curate(job, line, workers=workers, runner=asked.runner)
    if not asked.keep_work:
        shutil.rmtree(job.work, ignore_errors=True)
    if asked.json:
        print(json.dumps(asdict(report), ensure_ascii=False))
        return 0
    for step in report.steps:
        print(_row(step))
    for reason, count in report.unreadable_by_reason.items():
        print(f"{'unreadable':18} {count:>12,} {reason}")
    print(f"{out}: {report.documents_out:,} of {report.documents_in:,} documents kept")
    return 0


def _workers(source: Places) -> int:
    """One a core, as far as there are units; a few megabytes are done before other processes have begun."""
    whole = sum(source.size(unit) for unit in range(len(source)))
    return 1 if whole < _FEW_BYTES else min(os.cpu_count() or 1, len(source))


def _row(step: StepCount) -> str:
    """A line of the waterfall."""
    reasons = sorted(step.removed.items(), key=lambda one: -one[1])
    why = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    changed = f", {sum(step.edited.values()):,} changed" if step.edited else ""
    gone = step.documents_in - step.documents_out
    return f"{step.name:18} {step.documents_in:>12,} in {gone:>12,} removed{changed}" + (f"  ({why})" if why else "")


def _check(asked: Asked) -> None:
    if asked.workers < 0:
        raise SettingError(f"{asked.workers} workers", where="--workers", mend="give a number of processes, at least 1")
    for name, value in (("--memory-gb", asked.memory_gb), ("--unit-mb", asked.unit_mb)):
        if not 0 < value < 1e9:
            raise SettingError(f"{value} is no size", where=name, mend="give a positive number")
