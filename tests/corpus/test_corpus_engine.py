"""The engine: the same bytes whatever happens on the way, every document once, and the way back to it."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpus_steps import verdicts_of
from engine_sources import Dies, documents, results, write_sources

from herd.cli import main
from herd.corpus.engine.job import Held, Job, Places
from herd.corpus.engine.run import run
from herd.corpus.lines import RepeatedLines
from herd.corpus.pipeline import build_steps, curate, read_kept
from herd.corpus.records import Document
from herd.corpus.settings import CurateSettings, ReadSettings
from herd.corpus.shards import ShardWriter
from herd.corpus.step import CorpusStep, ManyStep
from herd.errors import ArtifactError, BusyError, HerdError
from herd.files import read_json, read_jsonl
from herd.progress import Silent

SMALL = ReadSettings(unit_bytes=6000)  # so that a few hundred documents are many units


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "sources"
    write_sources(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(sources: Path) -> Path:
    out = sources.parent / "undisturbed"
    run(job(sources, out), Silent())
    return out


def job(sources: Path, out: Path, **more: object) -> Job:
    return Job(Places.of([sources], SMALL), CurateSettings(), out, out / "work", **more)  # type: ignore[arg-type]


def command(sources: Path, out: Path) -> list[str]:
    line = ["-m", "herd", "curate", str(sources), "--out", str(out), "--unit-mb", "0.006", "--workers", "2"]
    return [sys.executable, *line]


def test_no_document_is_lost_and_none_is_there_twice(sources: Path, undisturbed: Path) -> None:
    kept = [document.id for document in read_kept(undisturbed)]
    removed = [row["id"] for path in sorted((undisturbed / "removed").iterdir()) for row in read_jsonl(path)]
    assert len({*kept, *removed}) == len(kept) + len(removed) == len(documents())
    aside = [row for path in (undisturbed / "unreadable").iterdir() for row in read_jsonl(path)]
    assert sorted(row["reason"] for row in aside) == ["bad_json", "bad_json", "truncated", "unknown_format"]
    report = read_json(undisturbed / "report.json")
    assert (report["documents_in"], report["documents_out"]) == (len(documents()), len(kept))
    assert report["unreadable_by_reason"] == {"bad_json": 2, "truncated": 1, "unknown_format": 1}
    assert len(list((undisturbed / "kept").iterdir())) > 5, "the test is of several units"


def step_by_step(held: list[Document], settings: CurateSettings) -> list[Document]:
    """The same list of steps, each over all that the one before has left: what the two passes must amount to."""
    for step in build_steps(settings):
        if isinstance(step, CorpusStep):
            verdicts = verdicts_of(step, held)
        else:
            verdicts = list(step.judge_many(held) if isinstance(step, ManyStep) else map(step.judge, held))
        held = [verdict.edited or page for page, verdict in zip(held, verdicts, strict=True) if verdict.keep]
    return held


@pytest.mark.parametrize("order", ["published", "lines first"])
def test_the_passes_amount_to_one_step_after_another(tmp_path: Path, order: str) -> None:
    steps = CurateSettings().steps
    if order == "lines first":  # several rounds: what comes behind a step that changes texts waits for it
        steps = (
            "repeated_lines",
            "exact_duplicates",
            "pii",
            "exact_duplicates",
            "repeated_lines",
            "near_duplicates",
            "repetition",
        )
    found = [page for page in documents() if not page.id.startswith("near")]
    distinct = list({page.id: page for page in found}.values())
    settings = CurateSettings(steps=steps)
    curate(distinct, settings, tmp_path)
    assert list(read_kept(tmp_path)) == step_by_step(distinct, settings)


def test_a_line_counts_among_the_documents_of_its_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 million in the paper; here 7: the line that all of the first seven have is removed, the one of ten in two
    buckets is not."""
    monkeypatch.setattr("herd.corpus.lines._TOGETHER", 7)
    shared, spread = "the line that stands in seven pages", "the line that stands in five and five"
    pages = []
    for number, letter in enumerate("abcdefghijklmn"):
        lines = [f"page {letter} of many", shared if number < 7 else "", spread if number % 7 < 5 else ""]
        pages.append(Document(letter, "\n".join(lines), "en", "s"))
    verdicts = verdicts_of(RepeatedLines(), pages)
    assert [verdict.edited is not None for verdict in verdicts] == [True] * 7 + [False] * 7
    left = [verdict.edited.text for verdict in verdicts if verdict.edited]
    assert not any(shared in text for text in left)
    assert sum(spread in text for text in left) == 5


def test_decisions_do_not_depend_on_the_memory_they_are_given(sources: Path, undisturbed: Path, tmp_path: Path) -> None:
    run(job(sources, tmp_path, memory=2000), Silent())
    assert results(tmp_path) == results(undisturbed)


def test_a_second_run_does_nothing_and_a_changed_file_is_seen(sources: Path, undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.gz")}
    run(job(sources, undisturbed), Silent())
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.gz")} == before
    again = Places.of([sources], SMALL)
    stamps = [again.stamp(unit) for unit in range(len(again))]
    before_it = (sources / "2.jsonl").stat()
    os.utime(sources / "2.jsonl", ns=(1, 1))
    changed = Places.of([sources], SMALL)
    os.utime(sources / "2.jsonl", ns=(before_it.st_atime_ns, before_it.st_mtime_ns))
    assert 0 < sum(changed.stamp(unit) != stamp for unit, stamp in enumerate(stamps)) < len(stamps)


def test_two_processes_do_not_curate_into_one_folder(sources: Path, undisturbed: Path) -> None:
    from herd.corpus.engine.files import locked

    with locked(undisturbed / "work"), pytest.raises(BusyError, match="another process"):
        run(job(sources, undisturbed), Silent())


@pytest.mark.slow
@pytest.mark.distributed
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(sources: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Each time a little further on: how far a run has come is seen by its files, then it dies at a random moment."""
    rng = random.Random()
    units = len(list((undisturbed / "counts").iterdir()))
    for share in (0.1, 0.5, 0.9, 1.0, 1.2, 1.5):  # 1.0: about the decisions
        process = subprocess.Popen(command(sources, tmp_path), start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None and made(tmp_path) < share * units:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        assert process.poll() is None, "it was to be killed on its way"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command(sources, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == results(undisturbed)
    assert not (tmp_path / "work").exists(), "what lay between the passes is removed at the end"
    assert not list(tmp_path.rglob("*.part"))


def made(out: Path) -> int:
    """Files that say that a piece of the work is whole."""
    return sum(len(list(out.glob(names))) for names in ("work/*/*/done.json", "work/decided-0", "counts/*.json"))


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_next_run_goes_on(sources: Path, undisturbed: Path, tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    failed = subprocess.run(
        [*command(sources, tmp_path)[:-1], "1"], preexec_fn=small_files, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 6, failed.stderr
    assert "cannot write" in failed.stderr
    assert "mend" in failed.stderr
    run(job(sources, tmp_path), Silent())
    assert results(tmp_path) == results(undisturbed)


@pytest.mark.slow
@pytest.mark.distributed
def test_the_death_of_workers(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "deaths").mkdir()
    outs = {}
    for times in (0, 1):
        out = tmp_path / f"out-{times}"
        run(job(sources, out, extra_steps=(Dies(str(tmp_path / "deaths"), times),)), Silent(), workers=2)
        outs[times] = {name: data for name, data in results(out).items() if not name.startswith("counts")}
    assert len(list((tmp_path / "deaths").iterdir())) >= 1
    assert outs[0] == outs[1]
    dying = job(sources, tmp_path / "out-9", extra_steps=(Dies(str(tmp_path / "deaths"), 99),))
    with pytest.raises(ArtifactError, match=r"(?s)died 3 times.*jsonl"):
        run(dying, Silent(), workers=2)


@pytest.mark.slow
@pytest.mark.distributed
def test_the_same_program_on_a_ray_cluster_of_two_nodes(sources: Path, undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip("daft", reason="the extra 'corpus' is not installed")
    pytest.importorskip("ray", reason="the extra 'corpus' is not installed")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "ray_curation.py"), str(sources), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    nodes = json.loads(done.stdout.splitlines()[-1])
    assert nodes == 2
    rows = [list(read_jsonl(path)) for path in sorted((undisturbed / "kept").iterdir())]
    assert [list(read_jsonl(path)) for path in sorted((tmp_path / "ray" / "kept").iterdir())] == rows
    assert results(tmp_path / "ray") == results(tmp_path / "daft") == results(undisturbed)


def test_why_a_page_was_removed(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies = [row for path in (undisturbed / "removed").iterdir() for row in read_jsonl(path)]
    gone = next(row for row in copies if row["step"] == "exact_duplicates")
    assert main(["corpus", "why", gone["id"], "--curated", str(undisturbed)]) == 0
    told = capsys.readouterr().out
    assert f"REMOVED by exact_duplicates: same_text ({gone['detail']})" in told
    assert "read from " in told
    page = next(row for row in [*copies, *map(Document.row, read_kept(undisturbed))] if row.get("url"))
    assert main(["corpus", "why", page["url"].replace("http://", "https://www."), "--curated", str(undisturbed)]) == 0
    assert page["url"] in capsys.readouterr().out
    assert main(["corpus", "why", "http://nowhere.org", "--curated", str(undisturbed)]) == 3
    assert main(["corpus", "why", "x", "--curated", str(undisturbed / "kept")]) == 4


def test_a_token_is_traced_to_its_document(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = list(read_kept(undisturbed))[:3]
    with ShardWriter(tmp_path / "shards", 1000) as writer:
        for number, page in enumerate(pages):
            name = f"{page.id}#0" if number == 1 else page.id  # a piece of a long document
            writer.add(range(10 * (number + 1)), id=name, source=page.source, lang=page.lang)
    assert main(["corpus", "trace", f"{tmp_path / 'shards'}:12", "--curated", str(undisturbed)]) == 0
    told = capsys.readouterr().out
    assert "token 12 is number 2 of 20 of document 1" in told
    assert f"document {pages[1].id}," in told
    assert "kept" in told
    assert main(["corpus", "trace", f"{tmp_path / 'shards'}:60", "--curated", str(undisturbed)]) == 3
    assert main(["corpus", "trace", "nonsense"]) == 2


def test_settings_that_make_no_sense_are_refused(sources: Path, tmp_path: Path) -> None:
    line = ["curate", str(sources), "--out", str(tmp_path)]
    assert main([*line, "--set", "min_wrods=5"]) == 2
    assert main([*line, "--workers", "-1"]) == 2
    assert main([*line, "--memory-gb", "0"]) == 2
    assert main(["curate", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 3


def test_an_unknown_runner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HerdError, match="no runner"):
        run(Job(Held([]), CurateSettings(), tmp_path, tmp_path / "work"), Silent(), runner="spark")
