"""Stages: what a folder's name depends on, what is run again, and what a crash, a kill or a second run may do."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from herd.config import to_plain
from herd.errors import ArtifactError, BusyError, StorageError
from herd.files import read_json, write_json
from herd.progress import Progress, Silent
from herd.stages import Context, Runner, Stage, link, only_one, ordered

HERE = __name__
CALLS: list[str] = []


@dataclass(frozen=True)
class Some:
    number: int = 1
    fail: str = ""


def work(ctx: Context) -> Mapping[str, Any]:
    """Counts its tries in scratch, notes what stood in `out`, and fails as its settings say."""
    settings: Some = ctx.settings
    CALLS.append(str(settings.number))
    tries = len(list(ctx.scratch.glob("try-*")))
    (ctx.scratch / f"try-{tries}").touch()
    assert list(ctx.out.iterdir()) == []
    (ctx.out / "half").write_text("x")
    if settings.fail == "first" and tries == 0:
        raise RuntimeError("it failed")
    if settings.fail == "kill" and tries == 0:
        os._exit(9)
    inputs = {name: read_json(path / "value.json") for name, path in ctx.inputs.items()}
    write_json(ctx.out / "value.json", [settings.number, inputs])
    return {"tries": tries + 1}


def signs(ctx: Context) -> None:
    write_json(ctx.out / "herd.json", {"own": 1, "stage": "mine"})


def stage(name: str = "a", number: int = 1, fail: str = "", **inputs: Stage) -> Stage:
    return Stage(name, f"{HERE}:work", Some(number, fail), inputs)


class Watched:
    """Remembers which stages ran and which were found."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.found: list[str] = []

    def start(self, stage: Stage, number: int, total: int) -> Progress:
        return Silent()

    def done(self, stage: Stage, seconds: float, metrics: Mapping[str, Any], found: bool) -> None:
        (self.found if found else self.ran).append(stage.name)


def diamond(number: int = 1, left: int = 2) -> list[Stage]:
    top = stage("top", number)
    a, b = stage("left", left, top=top), stage("right", 3, top=top)
    return [stage("end", 4, left=a, right=b)]


def test_the_name_depends_on_function_version_settings_and_inputs() -> None:
    one = stage()
    assert one.key == stage().key
    assert one.folder == f"a-{one.key}"
    different = [
        stage(number=2),
        Stage("a", f"{HERE}:signs", Some()),
        Stage("a", f"{HERE}:work", Some(), {}, version=2),
        stage(b=stage("b")),
        stage(b=stage("b", 2)),
        stage(c=stage("b")),
    ]
    assert len({one.key, *(each.key for each in different)}) == 7


def test_the_name_depends_on_nothing_else() -> None:
    a, b = stage("a"), stage("b", 2)
    assert stage("c", 3, a=a, b=b).key == Stage("c", f"{HERE}:work", Some(3), {"b": b, "a": a}).key
    assert stage("another", 1).key == stage("a", 1).key
    assert Stage("a", f"{HERE}:work", to_plain(Some())).key == stage().key


def test_the_name_is_the_same_in_another_process() -> None:
    code = "from herd.stages import Stage; print(Stage('a', 'm:f', {'x': [1, 2.5, 'é']}, {}).key)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told == Stage("a", "m:f", {"x": [1, 2.5, "é"]}).key


def test_inputs_come_first_and_each_stage_once() -> None:
    assert [each.name for each in ordered(diamond())] == ["top", "left", "right", "end"]


def test_a_second_run_finds_everything_and_changes_nothing(tmp_path: Path) -> None:
    paths = Runner(tmp_path).run(diamond())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    watch = Watched()
    CALLS.clear()
    assert Runner(tmp_path, watch).run(diamond()) == paths
    assert (CALLS, watch.ran, watch.found) == ([], [], ["top", "left", "right", "end"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == before
    assert read_json(paths["end"] / "value.json") == [
        4,
        {"left": [2, {"top": [1, {}]}], "right": [3, {"top": [1, {}]}]},
    ]


def test_a_changed_setting_runs_only_what_depends_on_it(tmp_path: Path) -> None:
    Runner(tmp_path).run(diamond())
    watch = Watched()
    Runner(tmp_path, watch).run(diamond(left=9))
    assert (watch.ran, watch.found) == (["left", "end"], ["top", "right"])
    watch = Watched()
    Runner(tmp_path, watch).run(diamond())  # the first one is still there
    assert watch.ran == []


def test_herd_json_says_what_made_it_from_what(tmp_path: Path) -> None:
    (end,) = diamond()
    record = read_json(Runner(tmp_path).run([end])["end"] / "herd.json")
    assert record["key"] == end.key
    assert record["settings"] == {"number": 4, "fail": ""}
    assert record["inputs"] == {name: source.folder for name, source in end.inputs.items()}
    assert record["metrics"] == {"tries": 1}
    own = Stage("own", f"{HERE}:signs", None)
    record = read_json(Runner(tmp_path).run([own])["own"] / "herd.json")
    assert (record["own"], record["stage"]) == (1, "own")


def test_a_failed_stage_keeps_its_scratch_and_no_output(tmp_path: Path) -> None:
    one = stage(fail="first")
    with pytest.raises(RuntimeError):
        Runner(tmp_path).run([one])
    assert not (tmp_path / "stages").exists()
    assert (tmp_path / "work" / one.folder / "out" / "half").exists()
    path = Runner(tmp_path).run([one])["a"]  # `work` sees to it that `out` is empty again
    assert read_json(path / "herd.json")["metrics"] == {"tries": 2}
    assert list((tmp_path / "work").iterdir()) == []
    assert sorted(file.name for file in path.iterdir()) == ["half", "herd.json", "value.json"]


def test_seconds_of_a_failed_try_are_counted(tmp_path: Path) -> None:
    one = stage(fail="first")
    with pytest.raises(RuntimeError):
        Runner(tmp_path).run([one])
    seconds = tmp_path / "work" / one.folder / "scratch" / ".seconds"
    assert float(seconds.read_text()) >= 0
    seconds.write_text("1000")
    assert read_json(Runner(tmp_path).run([one])["a"] / "herd.json")["seconds"] >= 1000


def child(tmp_path: Path, code: str) -> subprocess.Popen[str]:
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=tmp_path
    )


def test_a_killed_stage_goes_on_with_its_scratch(tmp_path: Path) -> None:
    one = stage(fail="kill")
    code = f"""
        from pathlib import Path
        import {HERE} as t
        t.Runner(Path("run")).run([t.stage(fail="kill")])
    """
    process = child(tmp_path, code)
    assert process.wait(120) == 9
    assert not (tmp_path / "run" / "stages").exists()
    path = Runner(tmp_path / "run").run([one])["a"]
    assert read_json(path / "herd.json")["metrics"] == {"tries": 2}


def test_work_left_by_a_kill_after_the_last_step_is_removed(tmp_path: Path) -> None:
    one = stage()
    Runner(tmp_path).run([one])
    (tmp_path / "work" / one.folder / "scratch" / "large").mkdir(parents=True)
    Runner(tmp_path).run([one])
    assert list((tmp_path / "work").iterdir()) == []


def test_half_a_stage_folder_is_not_a_finished_one(tmp_path: Path) -> None:
    one = stage()
    Runner(tmp_path).path(one).mkdir(parents=True)
    (Runner(tmp_path).path(one) / "value.json").write_text("half")
    assert not Runner(tmp_path).finished(one)
    assert read_json(Runner(tmp_path).run([one])["a"] / "value.json") == [1, {}]


def test_two_processes_in_one_folder(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from herd.stages import only_one
        with only_one(Path("run")):
            print("mine", flush=True)
            sys.stdin.read()
    """
    process = child(tmp_path, code)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "mine\n"
    prepared: list[int] = []
    with pytest.raises(BusyError, match=f"process {process.pid}") as caught:
        Runner(tmp_path / "run").run([stage()], prepare=lambda: prepared.append(1))
    assert "--out" in caught.value.mend
    assert prepared == []
    process.kill()  # the lock goes with the process, however it ends
    process.wait(60)
    assert set(Runner(tmp_path / "run").run([stage()])) == {"a"}


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), only_one(tmp_path):
        raise RuntimeError
    with only_one(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_run_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot make this folder"):
        Runner(tmp_path / "file").run([stage()])


def test_links_are_relative_and_replaced(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "stages" / name).mkdir(parents=True)
        link(tmp_path, "model", tmp_path / "stages" / name)
        assert os.readlink(tmp_path / "model") == f"stages/{name}"
    (tmp_path / "stages" / "two").rename(tmp_path / "gone")
    link(tmp_path, "model", tmp_path / "stages" / "one")  # over a link that leads nowhere
    assert (tmp_path / "model").resolve() == tmp_path.resolve() / "stages" / "one"
    (tmp_path / "users").write_text("mine")
    with pytest.raises(ArtifactError, match="a file of the user"):
        link(tmp_path, "users", tmp_path / "stages" / "one")
    assert (tmp_path / "users").read_text() == "mine"
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert (moved / "model").resolve() == (moved / "stages" / "one").resolve()


def test_versions_of_a_stage_stand_side_by_side(tmp_path: Path) -> None:
    one = stage()
    paths = [Runner(tmp_path).run([each])["a"] for each in (one, replace(one, version=2))]
    assert paths[0] != paths[1]
    assert all((path / "herd.json").is_file() for path in paths)
