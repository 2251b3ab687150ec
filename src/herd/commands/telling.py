"""Words beside a command's work, and outputs that cannot be written to: a full disk, a reader that left, none."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


def tell(text: str) -> None:
    """A line on stderr. That it cannot be written stops nothing: it is not what the command is for."""
    if sys.stderr is None:  # started with it closed
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        abandon(sys.stderr)


def abandon(stream: TextIO | None) -> None:
    """Let what cannot be written be forgotten: Python would try again at its end, complain, and exit with 120."""
    with suppress(OSError, ValueError, AttributeError):
        number = stream.fileno()  # type: ignore[union-attr]
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
