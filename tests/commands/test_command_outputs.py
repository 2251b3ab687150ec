"""Outputs that cannot be written to, and Ctrl-C at any moment: the right exit code, and never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from herd.commands import telling
from herd.errors import ArtifactError, StorageError

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
_CALL = [sys.executable, "-c", "import sys; from herd.cli import main; sys.exit(main())"]


def start(*words: str, **how: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_CALL, *words], text=True, timeout=60, check=False, **how)  # type: ignore[call-overload]


@needs_full
@pytest.mark.parametrize("command", ["chat", "serve"])
def test_a_failure_whose_words_cannot_be_written_has_its_exit_code(command, tmp_path):
    with FULL.open("w") as full:
        found = start(command, str(tmp_path / "nothing"), stderr=full, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert (found.returncode, found.stdout) == (ArtifactError.exit_code, "")


@needs_full
def test_an_answer_that_cannot_be_written_is_told():
    with FULL.open("w") as full:
        found = start("recipes", "pico", stdout=full, stderr=subprocess.PIPE)
    assert found.returncode == StorageError.exit_code
    assert found.stderr == "herd: what the command says cannot be written: No space left on device\n"


def test_a_reader_that_left_ends_the_command_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = start("recipes", "pico", stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (found.returncode, found.stderr) == (141, "")


def test_words_are_told_to_nobody_where_there_is_no_stderr(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    telling.tell("words")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_two_of_ctrl_c_while_a_command_works_and_leaves():
    code = """
import atexit, sys, time
from herd import cli
from herd.commands import recipes
def wait(name):
    print("works", flush=True)
    time.sleep(60)
def leave():
    print("leaves", flush=True)
    time.sleep(60)
recipes.show = wait
atexit.register(leave)
sys.exit(cli.main())
"""
    command = [sys.executable, "-c", code, "recipes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for word in ("works\n", "leaves\n"):
            assert process.stdout.readline() == word
            process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait(20) == -signal.SIGINT  # which a shell tells as 130
    assert told == "herd: stopped; the same command goes on from here\n"
