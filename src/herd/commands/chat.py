"""`herd chat`: talk to a model in the terminal, or feed it lines through a pipe."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from herd.errors import HerdError
from herd.generate import Request, Sampling
from herd.text import Message, StreamDecoder, Tokenizer, encode_prompt, parse_reply

HELP = """\
/reset         forget the conversation (the system message stays)
/system TEXT   replace the system message; without TEXT there is none
/tool TEXT     answer a tool call of the model with TEXT
/quit          leave; so do Ctrl-D and a second Ctrl-C (the first stops the answer, or takes back the line)
"""

Stream = Callable[[Request], Iterator[tuple[int, float]]]


def chat(
    model_folder: Path,
    *,
    system: str | None = None,
    temperature: float = 0.6,  # with top_p 0.9: what Meta's conversion writes for the instruct models
    top_p: float = 0.9,
    max_tokens: int = 1024,
    seed: int = 0,
    device: str = "auto",
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> None:
    """Load a model, in any format, and converse until the input ends. The same seed and lines give the same answers.

    Without `stdin` and `stdout` it is the process's own, as they are now.
    """
    stdin, stdout = stdin or sys.stdin, stdout or sys.stdout
    sampling = Sampling(temperature, top_p, max_tokens, seed=seed)  # bad settings are refused before the loading
    from herd.generate.engine import Engine
    from herd.weights.build import open_for_use

    said: list[str] = []
    model, tokenizer = open_for_use(model_folder, device, said.append)
    if tokenizer.foreign_format:
        print(tokenizer.foreign_format.told(), file=sys.stderr)
    sampling = replace(sampling, stop_ids=tokenizer.stop_ids)
    talk = Conversation(Engine(model).stream, tokenizer, sampling, model.config.max_seq_len, stdout, system)
    if stdin.isatty():
        stdout.writelines(f"{line}\n" for line in said)
        stdout.write(f"{model_folder}: /help lists the commands, Ctrl-D leaves\n")
    converse(talk, stdin, stdout)


def converse(talk: Conversation, stdin: TextIO, stdout: TextIO) -> None:
    """Read lines and answer them until the end of input, /quit, or the second Ctrl-C in a row."""
    warned = False
    while True:
        try:
            line = _read_line(stdin, stdout)
            if line is None or line.strip() == "/quit":
                return
            warned = talk.hear(line.strip()) == "interrupted"
        except KeyboardInterrupt:
            if warned:
                stdout.write("\n")
                return
            warned = True
            stdout.write("\n[Ctrl-C once more leaves]\n")


def _read_line(stdin: TextIO, stdout: TextIO) -> str | None:
    """The next line, None at the end. Prompts only a terminal, where Ctrl-C first takes back what is typed."""
    if stdin is not sys.stdin or not stdin.isatty():
        return stdin.readline() or None
    typed = _line_editing()
    try:
        return input("> ")
    except EOFError:
        stdout.write("\n")
        return None
    except KeyboardInterrupt:
        if not typed():
            raise
        stdout.write("\n")
        return ""


def _line_editing() -> Callable[[], str]:
    """Let input() edit lines, take pastes of several whole, and tell what stands in the line; "" without readline."""
    try:
        readline = importlib.import_module("readline")
    except ImportError:  # not on every platform
        return str
    typed: Callable[[], str] = readline.get_line_buffer
    return typed


@dataclass
class Conversation:
    """The history, and what a line typed does to it. `context` is the model's, in tokens."""

    stream: Stream
    tokenizer: Tokenizer
    sampling: Sampling
    context: int
    out: TextIO
    system: str | None = None
    history: list[Message] = field(default_factory=list)
    n_answers: int = 0

    def hear(self, line: str) -> str:
        """Act on one line; returns "interrupted" when Ctrl-C cut the answer, else ""."""
        command, _, rest = line.partition(" ")
        if not line:
            return ""
        if command == "/help":
            self.out.write(HELP)
        elif command == "/reset":
            self.history.clear()
            self.out.write("[the conversation is forgotten]\n")
        elif command == "/system":
            self.system = rest.strip() or None
            self.out.write("[the system message is replaced]\n" if self.system else "[no system message]\n")
        elif command == "/tool":
            return self._answer(Message("ipython", rest.strip()))
        elif command.startswith("/"):
            self.out.write(f"[{command} is no command; /help lists them]\n")
        else:
            return self._answer(Message("user", line))
        return ""

    def _answer(self, message: Message) -> str:
        """Put `message` to the model and print its answer as it comes; both enter the history."""
        before = [Message("system", self.system)] if self.system else []
        try:
            prompt = tuple(encode_prompt(self.tokenizer, [*before, *self.history, message]))
            if len(prompt) >= self.context:
                self._refuse(len(prompt))
                return ""
            pieces = self.stream(Request(prompt, replace(self.sampling, seed=self.sampling.seed + self.n_answers)))
            ids, interrupted = self._print(pieces)
        except HerdError as error:  # the conversation goes on without the line
            self.out.write(f"[{error}]\n")
            return ""
        self.n_answers += 1
        reply = parse_reply(self.tokenizer, ids)
        self.history += [message, reply]
        self._remark(prompt, ids, reply, interrupted)
        return "interrupted" if interrupted else ""

    def _print(self, pieces: Iterator[tuple[int, float]]) -> tuple[list[int], bool]:
        ids: list[int] = []
        decoder = StreamDecoder(self.tokenizer, skip_special=True)
        try:
            for token, _ in pieces:
                ids.append(token)
                if token == self.tokenizer.python_tag:
                    self.out.write("[calls a tool] ")
                self.out.write(decoder.push(token))
                self.out.flush()
        except KeyboardInterrupt:
            return ids, True
        finally:
            self.out.write(decoder.flush() + "\n")
            self.out.flush()
        return ids, False

    def _remark(self, prompt: tuple[int, ...], ids: list[int], reply: Message, interrupted: bool) -> None:
        """Say whatever about the answer the answer itself does not show."""
        if interrupted:
            self.out.write("[stopped; Ctrl-C once more leaves]\n")
        elif not ids or ids[-1] not in self.tokenizer.stop_ids:
            if len(prompt) + len(ids) >= self.context:
                self.out.write(f"[cut off: the context of {self.context} tokens is full; /reset begins anew]\n")
            else:
                self.out.write(f"[cut off after {len(ids)} tokens, as many as one answer may have]\n")
        if reply.problem:
            self.out.write(f"[{reply.problem}]\n")
        if reply.tool_calls:
            self.out.write("[/tool RESULT answers the call]\n")
        self.out.flush()

    def _refuse(self, n_tokens: int) -> None:
        self.out.write(
            f"[not sent: with this line the conversation has {n_tokens} tokens, and the model's context is "
            f"{self.context}; /reset begins anew, nothing was cut]\n"
        )
        self.out.flush()
