"""`herd` as a user runs it: another process, its exit code, what it prints; and folders compared byte for byte."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = [sys.executable, "-c", "import sys; from herd.cli import main; sys.exit(main())"]
PATIENCE = 900.0  # seconds until a process that waits for something is given up; no test asserts a time

Finished = subprocess.CompletedProcess[str]


def start(*arguments: object, max_file_bytes: int = 0) -> subprocess.Popen[str]:
    """Begin a command. With `max_file_bytes`, longer files fail in the middle of a write, as on a full disk."""

    def full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
        preexec_fn=full_disk if max_file_bytes else None,
    )


def end(process: subprocess.Popen[str]) -> Finished:
    """Wait for a command and take what it printed."""
    try:
        told, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()  # for a test that ends early; a finished process does not mind
    return subprocess.CompletedProcess(process.args, process.returncode, told)


def herd(*arguments: object, max_file_bytes: int = 0) -> Finished:
    """Run a command to its end."""
    return end(start(*arguments, max_file_bytes=max_file_bytes))


def succeed(*arguments: object) -> str:
    """Run a command that must exit with 0; what it printed."""
    done = herd(*arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def wait_until(process: subprocess.Popen[str], moment: Callable[[], bool], what: str) -> None:
    """Return when `moment()` holds; fails when the process ends before that."""
    began = time.monotonic()
    while not moment():
        if process.poll() is not None:
            raise AssertionError(f"the process ended before {what}:\n{end(process).stdout}")
        assert time.monotonic() - began < PATIENCE, f"waited in vain for {what}"
        time.sleep(0.002)


def lines_of(file: Path) -> int:
    """Whole lines of a file that may not be there yet, or no longer."""
    try:
        return file.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under `folder`, and where every link leads, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def stages(run: Path) -> dict[str, Path]:
    """The finished stages of a run by name; fails when a stage stands there twice."""
    folders = [path for path in (run / "stages").iterdir() if (path / "herd.json").is_file()]
    named = {path.name.rpartition("-")[0]: path for path in folders}
    assert len(named) == len(folders)
    return named


def weights(folder: Path) -> str:
    """A hash of all tensors of a model folder, as they stand on disk."""
    files = sorted(folder.glob("*.safetensors"))
    assert files, f"no weights in {folder}"
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
