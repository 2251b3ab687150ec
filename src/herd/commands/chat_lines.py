"""What is typed: lines of a terminal, with editing and a history that outlives the session, or of a pipe."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TextIO

from herd.commands.chat_screen import Screen

_KEPT = 1000  # lines of history


class Lines:
    """Lines of `stdin`. `typed`: whether a person types them."""

    def __init__(self, stdin: TextIO, stdout: TextIO) -> None:
        self._stdin, self._stdout = stdin, stdout
        self.typed = stdin is sys.stdin and stdin.isatty()
        self._readline = _readline() if self.typed else None

    def read(self) -> str | None:
        """The next line, None at the end. Prompts only a terminal, where Ctrl-C first takes back what is typed."""
        if not self.typed:
            return self._stdin.readline() or None
        try:
            return input("> ")
        except EOFError:
            self._stdout.write("\n")
            return None
        except KeyboardInterrupt:
            if self._readline is None or not self._readline.get_line_buffer():
                raise
            self._stdout.write("\n")
            return ""

    @contextmanager
    def kept(self, screen: Screen) -> Iterator[None]:
        """Within, lines of earlier sessions can be called up; at the end those of this one are added to them."""
        readline = self._readline
        if readline is None:
            yield
            return
        path = history_file()
        try:
            _make(path)
            readline.read_history_file(path)
        except OSError as error:
            screen.remark(f"earlier lines are not at hand: {error}")
        before = readline.get_current_history_length()
        try:
            yield
        finally:
            readline.set_history_length(_KEPT)
            try:
                readline.append_history_file(readline.get_current_history_length() - before, path)
            except OSError as error:
                screen.remark(f"the lines of this session are not kept: {error}")


def history_file() -> Path:
    """Under the user's state directory (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "herd" / "chat_history"


def _make(path: Path) -> None:
    """The file is there, and for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    path.chmod(0o600)


def _readline() -> ModuleType | None:
    """Lets input() edit lines and take pastes of several whole; not on every platform."""
    try:
        return importlib.import_module("readline")
    except ImportError:
        return None
