"""Stages side by side: they do run at once, nothing of them is lost, and no child outlives its run."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from herd import errors
from herd.errors import HerdError, MissingExtraError, StorageError, TrainingError
from herd.files import read_json, write_json
from herd.lanes import LaneRunner
from herd.stages import Context, Runner, Stage, grouped, ordered, wall_seconds

HERE = Path(__file__)
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _lanes_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))


@dataclass(frozen=True)
class Play:
    """What a stage of these tests does; `meeting` is a folder outside the run."""

    name: str
    do: str = ""
    meeting: str = ""


def wait_for(file: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not file.exists():
        assert time.monotonic() < end, f"{file} never came"
        time.sleep(0.01)


def play(ctx: Context) -> Mapping[str, Any]:
    settings: Play = ctx.settings
    meeting = Path(settings.meeting)
    ctx.progress.note(f"{settings.name} begins")
    if settings.do == "meet":  # neither ends before the other has begun
        (meeting / settings.name).touch()
        wait_for(meeting / ("b" if settings.name == "a" else "a"))
    elif settings.do == "print":
        print("a library talks")
        os.write(1, b"and so does its C code\n")
    elif settings.do == "full":
        raise StorageError("the disk is full", where="here", mend="make room")
    elif settings.do == "bug":
        raise ValueError("a bug")
    elif settings.do == "die" and not (meeting / "died").exists():
        (meeting / "died").touch()
        os._exit(9)
    elif settings.do == "wait" and not (meeting / "free").exists():
        (meeting / f"pid-{settings.name}").write_text(str(os.getpid()))
        try:
            wait_for(meeting / "never")
        except KeyboardInterrupt:
            with open(meeting / f"interrupted-{settings.name}", "a") as file:
                file.write("once\n")
            raise
    ctx.progress.update(1, 1, "plays", {"loss": 1.5})
    inputs = {name: read_json(path / "value.json") for name, path in ctx.inputs.items()}
    write_json(ctx.out / "value.json", [settings.name, inputs])
    return {"threads": int(os.environ.get("OMP_NUM_THREADS", 0)), "process": os.getpid(), "device": ctx.device}


def stage(name: str, do: str = "", meeting: Path | str = "", at_once: int = 2, **inputs: Stage) -> Stage:
    return Stage(name, "test_lanes:play", Play(name, do, str(meeting)), inputs, at_once=at_once)


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / "herd.json")["metrics"]
    return found


class Notes:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def start(self, stage: Stage, number: int, total: int) -> Notes:
        self.heard.append(f"start {stage.name} {number}/{total}")
        return self

    def done(self, stage: Stage, seconds: float, metrics: Mapping[str, Any], found: bool) -> None:
        self.heard.append(f"{'found' if found else 'done'} {stage.name}")

    def update(self, done: float, total: float, unit: str, facts: Mapping[str, Any] | None = None) -> None:
        self.heard.append(f"update {done}/{total} {unit} {facts}")

    def note(self, text: str) -> None:
        self.heard.append(text)


def test_groups_are_neighbours_of_a_kind() -> None:
    root = stage("root", at_once=1)
    a, b = stage("a", root=root), stage("b", root=root)
    after = stage("after", a=a)
    last = stage("last", at_once=3, b=b)
    names = [[one.stage.name for one in group] for group in grouped(ordered([root, a, b, after, last]))]
    assert names == [["root"], ["a", "b", "after"], ["last"]]
    numbers = [one.number for group in grouped(ordered([root, a, b, after, last])) for one in group]
    assert numbers == [1, 2, 3, 4, 5]


def test_the_device_of_a_run_reaches_every_stage_and_enters_no_hash(tmp_path: Path) -> None:
    a = stage("a", at_once=1)
    stages = [a, stage("b", a=a), stage("c", a=a)]
    for device in ("cuda:1", "cpu"):
        paths = LaneRunner(tmp_path / device, threads=2, device=device).run(stages)
        assert [metrics(path)["device"] for path in paths.values()] == [device] * 3
        assert [path.name for path in paths.values()] == [each.folder for each in stages]
    assert metrics(Runner(tmp_path / "default").run([a])["a"])["device"] == "cpu"


def test_a_chain_runs_beside_another_stage_each_link_after_the_one_before(tmp_path: Path) -> None:
    """`b` waits for what the second link of the chain says, and the second link for what `b` says."""
    first = stage("first")
    chain = stage("a", "meet", tmp_path, first=first)
    paths = LaneRunner(tmp_path / "run", threads=2).run([first, stage("b", "meet", tmp_path), chain])
    assert read_json(paths["a"] / "value.json") == ["a", {"first": ["first", {}]}]


def test_how_many_run_at_once_is_no_part_of_the_key() -> None:
    assert stage("a", at_once=1).key == stage("a", at_once=4).key


def test_two_stages_run_at_the_same_time_and_make_what_one_after_the_other_makes(tmp_path: Path) -> None:
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    root = stage("root", at_once=1)
    a, b = (stage(name, "meet", meeting, root=root) for name in "ab")
    end = stage("end", at_once=1, a=a, b=b)
    watch = Notes()
    side = LaneRunner(tmp_path / "side", watch, threads=2).run([end])
    line = Runner(tmp_path / "line").run([end])  # the two met already
    assert read_json(side["end"] / "value.json") == read_json(line["end"] / "value.json")
    assert metrics(side["root"])["process"] == metrics(side["end"])["process"] == os.getpid()
    assert len({os.getpid(), metrics(side["a"])["process"], metrics(side["b"])["process"]}) == 3
    assert {"start a 2/4", "start b 3/4", "a begins", "done b", "update 1/1 plays {'loss': 1.5}"} <= set(watch.heard)
    spans = [read_json(side[name] / "herd.json") for name in side]
    assert wall_seconds(spans) < sum(one["seconds"] for one in spans)


def test_the_share_of_threads_is_that_of_the_kind_even_for_the_last_one_left(tmp_path: Path) -> None:
    three = [stage(name) for name in "abc"]
    paths = LaneRunner(tmp_path, threads=6).run(three[:1])
    assert metrics(paths["a"])["threads"] == 3
    paths = LaneRunner(tmp_path, threads=6).run(three)
    assert [metrics(paths[name])["threads"] for name in "abc"] == [3, 3, 3]
    alone = LaneRunner(tmp_path / "one", threads=1).run(three)
    assert [metrics(alone[name])["threads"] for name in "abc"] == [1, 1, 1]
    assert len({metrics(alone[name])["process"] for name in "abc"}) == 1  # one core has one lane


def test_what_a_library_prints_does_not_stand_in_the_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = LaneRunner(tmp_path, threads=2).run([stage("a", "print"), stage("b", "print")])
    assert set(paths) == {"a", "b"}
    out, err = capfd.readouterr()
    assert "C code" in err
    assert "C code" not in out


def test_found_stages_are_told_and_not_run(tmp_path: Path) -> None:
    LaneRunner(tmp_path, threads=2).run([stage("a")])
    watch = Notes()
    LaneRunner(tmp_path, watch, threads=2).run([stage("a"), stage("b")])
    assert "found a" in watch.heard
    assert "done b" in watch.heard
    assert "start a 1/2" not in watch.heard


def test_an_error_of_a_stage_arrives_whole_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        LaneRunner(tmp_path, threads=2).run([stage("a", "full"), stage("b")])
    assert (caught.value.where, caught.value.mend, caught.value.exit_code) == ("here", "make room", 6)
    assert "make room" in str(caught.value)
    assert set(LaneRunner(tmp_path, threads=2).run([stage("a"), stage("b")])) == {"a", "b"}


def test_a_bug_is_told_with_its_kind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="ValueError: a bug"):
        LaneRunner(tmp_path, threads=2).run([stage("a", "bug"), stage("b")])
    assert "Traceback" in capfd.readouterr().err


def test_a_lane_that_dies_names_its_stage(tmp_path: Path) -> None:
    stages = [stage("a", "die", tmp_path), stage("b")]
    with pytest.raises(HerdError, match="status 9") as caught:
        LaneRunner(tmp_path / "run", threads=2).run(stages)
    assert caught.value.where == "a"
    assert set(LaneRunner(tmp_path / "run", threads=2).run(stages)) == {"a", "b"}


def start_run(folder: Path) -> subprocess.Popen[bytes]:
    code = f"""
        from pathlib import Path
        import test_lanes as t
        t.LaneRunner(Path({str(folder / "run")!r}), threads=2).run([t.stage(n, "wait", {str(folder)!r}) for n in "ab"])
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE)
    for name in "ab":
        wait_for(folder / f"pid-{name}")
    return process


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().split()[2] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_lane_outlives_its_run(tmp_path: Path, number: signal.Signals) -> None:
    process = start_run(tmp_path)
    time.sleep(0.2)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    pids = [int((tmp_path / f"pid-{name}").read_text()) for name in "ab"]
    end = time.monotonic() + PATIENCE
    while not all(map(gone, pids)):
        assert time.monotonic() < end
        time.sleep(0.02)
    if number == signal.SIGINT:  # each was asked once, and had its time to keep a checkpoint
        assert [(tmp_path / f"interrupted-{name}").read_text() for name in "ab"] == ["once\n", "once\n"]
    (tmp_path / "free").touch()
    assert set(LaneRunner(tmp_path / "run", threads=2).run([stage(n, "wait", tmp_path) for n in "ab"])) == {"a", "b"}


def test_every_error_crosses_between_processes() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HerdError)]
    assert TrainingError in kinds
    for kind in kinds:
        error = kind("pack", extra="x") if kind is MissingExtraError else kind("what", where="w", mend="m")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert str(again) == str(error)


def test_wall_seconds_counts_what_overlaps_once() -> None:
    spans = [
        {"seconds": 10, "ended": 110},
        {"seconds": 5, "ended": 108},
        {"seconds": 4, "ended": 112},
        {"seconds": 1, "ended": 200},
    ]
    assert wall_seconds(spans) == 13
    assert wall_seconds([{"seconds": 3}, {"seconds": 2}, {}]) == 5  # of a run that did not note the hour
