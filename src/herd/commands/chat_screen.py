"""What `herd chat` writes: plain text to a pipe, Markdown that grows to a terminal.

A terminal shows an answer block by block: what is whole is printed for good, so that it scrolls like any other text;
only the block that still grows is drawn again.
"""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_PAUSE = 1 / 12  # seconds between two drawings of a block that grows
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # whatever could steer a terminal; tabs and line ends stay


def screen_for(out: TextIO) -> Screen:
    """Markdown where a terminal can show it and nobody asks for none (no-color.org)."""
    if not out.isatty():
        return Plain(out)
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return Plain(out, terminal=True)
    return Drawn(out)


class Screen(ABC):
    """`terminal`: whether a person looks at it, so that figures are of use."""

    def __init__(self, out: TextIO, *, terminal: bool = False) -> None:
        self.out, self.terminal = out, terminal

    def line(self, text: str) -> None:
        """A line of its own."""
        self.out.write(f"{self._clean(text)}\n")
        self.out.flush()

    def _clean(self, text: str) -> str:
        """No model steers a terminal; a pipe gets what was said."""
        return _CONTROLS.sub("\ufffd", text) if self.terminal else text

    @abstractmethod
    def remark(self, text: str) -> None:
        """Something that herd says, not the model."""

    @abstractmethod
    def push(self, text: str) -> None:
        """More of the model's answer."""

    @abstractmethod
    def finish(self) -> None:
        """The answer, or the part of it before a remark, has ended."""


class Plain(Screen):
    """Text as it comes."""

    def __init__(self, out: TextIO, *, terminal: bool = False) -> None:
        super().__init__(out, terminal=terminal)
        self._open = False

    def remark(self, text: str) -> None:
        self.line(f"[{text}]")

    def push(self, text: str) -> None:
        self.out.write(self._clean(text))
        self.out.flush()
        self._open = self._open or bool(text)

    def finish(self) -> None:
        if self._open:
            self.line("")
        self._open = False


class Drawn(Screen):
    """Markdown, drawn by rich."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out, terminal=True)
        from rich.console import Console

        self._console = Console(file=out, highlight=False)
        self._text, self._parts, self._last = "", 0, 0.0
        self._live = self._made()

    def remark(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(f"[{self._clean(text)}]", style="dim"))

    def push(self, text: str) -> None:
        self._text += self._clean(text)
        now = time.monotonic()
        if self._text.strip() and now - self._last >= _PAUSE:
            self._last = now
            self._draw()

    def finish(self) -> None:
        if self._text.strip():
            self._draw()
        self._live.stop()
        self._text, self._parts, self._last = "", 0, 0.0
        self._live = self._made()

    def _made(self) -> Live:
        from rich.live import Live

        return Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def _draw(self) -> None:
        whole, self._text = split_blocks(self._text)
        self._live.start()
        for text in whole:
            self._live.console.print(self._markdown(text))
            self._parts += 1
        self._live.update(self._markdown(self._text), refresh=True)

    def _markdown(self, text: str) -> RenderableType:
        """A block, an empty line before it unless it is the first."""
        from rich.console import Group
        from rich.markdown import Markdown

        drawn = Markdown(text, code_theme="ansi_dark", hyperlinks=False)  # the terminal's own colours
        return Group("", drawn) if self._parts else drawn


def split_blocks(text: str) -> tuple[list[str], str]:
    """The blocks that nothing can be added to any more, and the rest: the last block is still being written."""
    from rich.markdown import Markdown

    starts = [token.map[0] for token in Markdown(text).parsed if token.level == 0 and token.map and token.nesting >= 0]
    lines = text.splitlines(keepends=True)
    edges = [0, *starts[1:]]
    whole = ["".join(lines[a:b]) for a, b in pairwise(edges)]
    return whole, "".join(lines[edges[-1] :])
