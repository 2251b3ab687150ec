"""`herd chat`: talk to a model in the terminal, or feed it lines through a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from herd.commands.chat_lines import Lines
from herd.commands.chat_orders import hear
from herd.commands.chat_screen import Screen, screen_for
from herd.commands.chat_talk import Answers, Conversation
from herd.commands.telling import tell
from herd.errors import InputError
from herd.generate import Sampling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herd.generate import Request
    from herd.generate.engine import Engine


def chat(
    model_folder: Path,
    *,
    system: str | None = None,
    temperature: float = 0.6,  # with top_p 0.9: what Meta's conversion writes for the instruct models
    top_p: float = 0.9,
    max_tokens: int = 1024,
    seed: int = 0,
    device: str = "auto",
    fp8: str = "",
    draft: str = "",
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> None:
    """Load a model, in any format, and converse until the input ends. The same seed and lines give the same answers.

    `fp8` and `draft`: see `ModelSettings`. Without `stdin` and `stdout` it is the process's own, as they are now.
    """
    stdin, stdout = stdin or sys.stdin, stdout or sys.stdout
    sampling = Sampling(temperature, top_p, max_tokens, seed=seed)  # bad settings are refused before the loading
    from herd.serve.loading import ModelSettings, load
    from herd.serve.settings import ServeSettings

    loaded = load(
        ModelSettings(model_folder, device, fp8, draft, mapped=True), ServeSettings(str(model_folder), max_running=1)
    )
    served, tokenizer = loaded.served, loaded.served.tokenizer
    if not tokenizer.can_chat:
        raise InputError(
            "this model has no chat format: it goes on with a text, and was not made to answer",
            where=str(model_folder),
            mend=f"have it go on with yours: herd serve {model_folder}, and ask /v1/completions",
        )
    if tokenizer.foreign_format:
        tell(tokenizer.foreign_format.told())
    screen = screen_for(stdout)
    talk = Conversation(OverPages(loaded.engine), tokenizer, sampling, served.room, screen, system)
    lines = Lines(stdin, stdout)
    if lines.typed:
        stdout.writelines(f"{line}\n" for line in served.remarks)
        stdout.write(f"{model_folder}: /help lists the commands, Ctrl-D leaves\n")
    with lines.kept(screen):
        converse(talk, lines, screen)


def converse(talk: Conversation, lines: Lines, screen: Screen) -> None:
    """Read lines and answer them until the end of input, /quit, or the second Ctrl-C in a row."""
    warned = False
    while True:
        try:
            line = lines.read()
            if line is None or line.strip() == "/quit":
                return
            warned = hear(talk, line.strip()) == "interrupted"
        except KeyboardInterrupt:
            screen.line("")
            if warned:
                return
            warned = True
            screen.remark("Ctrl-C once more leaves")


class OverPages(Answers):
    """Answers out of the engine's pages: what they hold of a conversation is not computed again at its next turn."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def stream(self, request: Request) -> Iterator[int]:
        handle = self._engine.submit(request)
        try:
            while self._engine.has(handle):
                step = self._engine.step()
                yield from (one.token for one in step.sampled)
                self.known = sum(completion.cached for _, completion in step.finished)
        finally:
            self._engine.cancel(handle)
