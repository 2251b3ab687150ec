"""`herd chat` in a real pseudo-terminal: typing, streaming, Ctrl-C, Ctrl-D, pastes, letters of all kinds.

The folder holds a real tiny model; what it says is scripted in the child process, so that the test knows the answer.
"""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.text import Tokenizer
from herd.weights.hf import save_model

pytest.importorskip("readline")

PATIENCE = 120.0  # seconds until a terminal that stays silent is given up; no test asserts a time
CHILD = """
import sys, time
from herd.commands import chat
from herd.text import Tokenizer

tokenizer = Tokenizer.train([])

def stream(self, request):
    turns = tokenizer.decode(request.prompt).split("<|eot_id|>")
    said = [turn.partition("<|end_header_id|>")[2].strip() for turn in turns]
    system, user = said[0], said[-2]
    if user == "count":
        for number in range(10**6):
            yield from tokenizer.encode(f"{number} ")
            time.sleep(0.01)
    if user == "markdown":
        for word in "# Head\\n\\nSome **bold** words\\n\\n- one\\n- two \\x1b[31m\\n\\nand the end".split(" "):
            yield from tokenizer.encode(word + " ")
            time.sleep(0.05)
        yield tokenizer.eot
        return
    text = f"heard {len(user)} {user[-12:]!r} as {system[-9:]!r}"
    yield from [*tokenizer.encode(text), tokenizer.eot]

chat.OverPages.stream = stream
from herd.cli import main
sys.exit(main())
"""


class Terminal:
    """A person at a terminal: types, and waits for what should appear."""

    def __init__(self, *arguments: str, state: Path, **environment: str) -> None:
        self.process, self.screen = pty.fork()
        if not self.process:  # the child
            own = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "XDG_STATE_HOME": str(state)}
            os.execve(sys.executable, [sys.executable, "-c", CHILD, *arguments], os.environ | own | environment)
        self.seen = b""

    def types(self, text: str) -> None:
        """Beside reading: a terminal's own buffer is smaller than a long paste."""
        threading.Thread(target=os.write, args=(self.screen, text.encode()), daemon=True).start()

    def shows(self, text: str) -> str:
        """Wait for `text`; what came up to its end, which is not looked at again."""
        wanted, began = text.encode(), time.monotonic()
        while wanted not in self.seen:
            assert time.monotonic() - began < PATIENCE, f"waited in vain for {text!r} after {self.seen[-500:]!r}"
            if select.select([self.screen], [], [], 1.0)[0]:
                self.seen += self._read()
        before, _, self.seen = self.seen.partition(wanted)
        return (before + wanted).decode(errors="replace")

    def _read(self) -> bytes:
        try:
            return os.read(self.screen, 65536)
        except OSError:  # Linux says so when the other side is closed
            raise AssertionError(f"the chat ended; before that it showed {self.seen[-500:]!r}") from None

    def leaves(self) -> int:
        """The exit code of a chat that should end now."""
        _, status = os.waitpid(self.process, 0)
        self.process = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.process:
            os.kill(self.process, 9)
            os.waitpid(self.process, 0)
        os.close(self.screen)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer.train([])
    llama = Llama(LlamaConfig(tokenizer.vocab_size, 16, 1, 2, 1, 32, max_seq_len=30_000))
    init_weights(llama, 1)
    folder = tmp_path_factory.mktemp("chat") / "model"
    save_model(folder, llama, llama.config, tokenizer=tokenizer, herd={})
    return folder


@contextmanager
def at(model: Path, state: Path, **environment: str) -> Iterator[Terminal]:
    terminal = Terminal("chat", str(model), "--system", "Be brief.", state=state, **environment)
    try:
        terminal.shows("Ctrl-D leaves\r\n> ")
        yield terminal
    finally:
        terminal.close()


@pytest.fixture
def terminal(model: Path, tmp_path: Path) -> Iterator[Terminal]:
    with at(model, tmp_path, NO_COLOR="1") as found:
        yield found


def test_a_conversation(terminal: Terminal) -> None:
    terminal.types("Grüezi สวัสดี 🦙\r")
    terminal.shows("heard 15 'ezi สวัสดี 🦙' as 'Be brief.'\r\n[")
    terminal.shows(" tokens/s, first after ")
    terminal.shows("]\r\n> ")

    terminal.types("\x1b[200~" + "x" * 20_000 + "\nlast line\x1b[201~\r")  # a paste of two lines, one of them long
    terminal.shows("heard 20010 'xx\\nlast line' as 'Be brief.'\r\n")
    terminal.shows("\r\n> ")

    terminal.types("count\r")
    terminal.shows("0 1 2 3 ")  # it streams: the whole would take hours
    terminal.types("\x03")
    terminal.shows("[stopped; Ctrl-C once more leaves]\r\n")
    terminal.shows("\r\n> ")
    terminal.types("half a thou")
    terminal.shows("half a thou")
    terminal.types("\x03")  # takes back the line, and the conversation goes on
    terminal.shows("\r\n> ")
    terminal.types("ght\r")
    terminal.shows("heard 3 'ght'")
    terminal.shows("> ")

    terminal.types("/system Be long.\r")
    terminal.shows("[the system message is replaced]\r\n> ")
    terminal.types("hm\r")
    terminal.shows("heard 2 'hm' as 'Be long.'\r\n")
    terminal.shows("> ")
    terminal.types("\x04")
    assert terminal.leaves() == 0


def test_two_ctrl_c_in_a_row_leave(terminal: Terminal) -> None:
    terminal.types("\x03")
    terminal.shows("[Ctrl-C once more leaves]\r\n> ")
    time.sleep(1)  # readline shows its prompt a moment before it listens; a signal in between waits for the next key
    terminal.types("\x03")
    assert terminal.leaves() == 0


@pytest.mark.slow
def test_lines_are_called_up_in_the_next_session_by_their_owner_alone(model: Path, tmp_path: Path) -> None:
    with at(model, tmp_path, NO_COLOR="1") as terminal:
        terminal.types("first of all\r")
        terminal.shows("heard 12 'first of all'")
        terminal.shows("> ")
        terminal.types("\x04")
        assert terminal.leaves() == 0
    kept = tmp_path / "herd" / "chat_history"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "first of all" in kept.read_text()
    with at(model, tmp_path, NO_COLOR="1") as terminal:
        terminal.types("\x1b[A")  # the key up
        terminal.shows("first of all")
        terminal.types("\r")
        terminal.shows("heard 12 'first of all'")


@pytest.mark.slow
def test_a_terminal_with_colours_shows_markdown(model: Path, tmp_path: Path) -> None:
    with at(model, tmp_path, NO_COLOR="", COLUMNS="80", LINES="24") as terminal:
        terminal.types("markdown\r")
        first = terminal.shows("bold")
        assert "**" not in first.partition("markdown")[2]
        rest = terminal.shows("first after")
        assert "\x1b[" in rest  # it is drawn
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", rest)
        assert " • one " in plain
        assert "\x1b[31m" not in rest  # a model steers no terminal
        terminal.shows("> ")
        terminal.types("count\r")
        terminal.shows("0 1 2 3 ")
        terminal.types("\x03")
        terminal.shows("stopped; Ctrl-C once more leaves")
        terminal.shows("> ")
        terminal.types("\x04")
        assert terminal.leaves() == 0
