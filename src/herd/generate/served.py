"""A batch of questions to a served model, with the answers kept on disk as they come: a kill loses those under way.

    answers = ask_all(endpoint, [(messages, sampling), ...], Path("answers.jsonl"), progress)
    Served(endpoint, tokenizer, Path("answers.jsonl")).generate(requests)      # the `Generator` protocol

Each line of the file is one answer under the hash of what was asked (model, messages, sampling): the same batch asked
again reads them, a changed question is asked anew, a line cut short by a kill is asked again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from herd.errors import HerdError, SettingError, StorageError
from herd.files import storage_errors
from herd.generate.endpoint import Endpoint, Reply, to_wire
from herd.generate.protocol import SILENT, Completion, Request, Sampling
from herd.progress import Progress
from herd.text.chat import encode_content, stop_id
from herd.text.dialogues import message_from_dict, message_to_dict
from herd.text.message import Message
from herd.text.prompts import read_prompt
from herd.text.tokenizer import Tokenizer

# Always part of a question's hash; settings that came later only where they are set, so that stores stay known.
_OLDEST = ("temperature", "top_p", "max_tokens", "stop_ids", "seed")

Question = tuple[Sequence[Message], Sampling]


def ask_all(
    endpoint: Endpoint, questions: Sequence[Question], store: Path | None, progress: Progress = SILENT
) -> list[Reply]:
    """One reply for each question, in their order; equal questions are asked once.

    Raises EndpointError when one is refused for good: what was answered until then is in `store`.
    """
    keys = [_key(endpoint, question) for question in questions]
    known = _read(store) if store else {}
    if known:
        progress.note(f"{sum(key in known for key in keys)} of {len(keys)} answers are here already")
    open_questions = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
    if open_questions:
        with _Log(store) as log:
            _ask(endpoint, open_questions, known, log, len(set(keys)), progress)
    return [known[key] for key in keys]


def _ask(
    endpoint: Endpoint,
    questions: dict[str, Question],
    known: dict[str, Reply],
    log: _Log,
    total: int,
    progress: Progress,
) -> None:
    """Ask with `concurrency` under way, never queueing more: a stop waits for those alone."""
    waiting = iter(questions.items())
    under_way: dict[Future[Reply], str] = {}
    done = total - len(questions)
    fault: HerdError | None = None
    stopped = threading.Event()

    def ask(key: str, question: Question) -> Reply:
        """In a thread of the pool, the answer's way to the disk too: a Ctrl-C waits for it and loses none."""
        reply = endpoint.ask(*question, given_up=stopped.is_set)
        log.add(key, reply)
        return reply

    with ThreadPoolExecutor(endpoint.settings.concurrency) as pool:
        try:
            while True:
                while fault is None and len(under_way) < endpoint.settings.concurrency:
                    following = next(waiting, None)
                    if following is None:
                        break
                    under_way[pool.submit(ask, *following)] = following[0]
                if not under_way:
                    break
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    key = under_way.pop(future)
                    try:
                        known[key] = future.result()
                    except HerdError as error:
                        fault = fault or error
                        stopped.set()
                        continue
                    done += 1
                    progress.update(done, total, "answers")
        finally:
            stopped.set()
    if fault is not None:
        raise fault


class _Log:
    """Appends one line an answer, flushed; a half line that a kill left is closed first."""

    def __init__(self, path: Path | None) -> None:
        self.path, self._lock = path, threading.Lock()
        self._handle = None if path is None else self._open(path)

    def _open(self, path: Path) -> IO[bytes]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = open(path, "ab+")  # noqa: SIM115  # closed by __exit__
        except OSError as error:
            raise StorageError(
                f"the answers cannot be kept: {error.strerror}", where=str(path), mend="name a file that can be written"
            ) from error
        if handle.tell():
            handle.seek(-1, 2)
            if handle.read(1) != b"\n":
                handle.write(b"\n")
        return handle

    def add(self, key: str, reply: Reply) -> None:
        if self._handle is not None and self.path is not None:
            row = {"key": key, "message": message_to_dict(reply.message), "finish": reply.finish}
            with storage_errors(self.path), self._lock:
                self._handle.write(json.dumps(row).encode() + b"\n")
                self._handle.flush()

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *error: object) -> None:
        if self._handle is not None:
            self._handle.close()


def _key(endpoint: Endpoint, question: Question) -> str:
    messages, sampling = question
    plain = asdict(Sampling())
    settings = {name: value for name, value in asdict(sampling).items() if name in _OLDEST or value != plain[name]}
    text = json.dumps([endpoint.settings.model, to_wire(messages), settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read(store: Path) -> dict[str, Reply]:
    """The whole lines of a store; what a kill cut short is not there."""
    found = {}
    for line in store.read_bytes().splitlines() if store.is_file() else ():
        try:
            row: Any = json.loads(line)
            found[row["key"]] = Reply(message_from_dict(row["message"]), row["finish"])
        except (ValueError, KeyError, TypeError, HerdError):
            continue
    return found


class Served:
    """Implements `Generator` on a served model: prompts of ids become messages, answers become ids.

    The server says nothing of its log-probabilities under our ids, so those of the completions are empty. Its tokenizer
    need not be ours. `stop_ids` are ours to obey: the server ends its turn by itself.
    """

    def __init__(self, endpoint: Endpoint, tokenizer: Tokenizer, store: Path | None = None) -> None:
        self.endpoint, self.tokenizer, self.store = endpoint, tokenizer, store

    def generate(self, requests: Sequence[Request], progress: Progress = SILENT) -> list[Completion]:
        """One completion for each request, in their order.

        Raises InputError for a prompt that is no conversation, SettingError for a grammar, which cannot be sent.
        """
        if any(request.grammar is not None for request in requests):
            raise SettingError("a grammar is not asked of served models", where="grammar", mend="leave it out")
        questions = [(read_prompt(self.tokenizer, request.prompt), request.sampling) for request in requests]
        replies = ask_all(self.endpoint, questions, self.store, progress)
        pairs = zip(replies, requests, strict=True)
        return [self._completion(reply, request.sampling) for reply, request in pairs]

    def _completion(self, reply: Reply, sampling: Sampling) -> Completion:
        """With stop texts the server's text is the one before the stop; which of them it was is not told."""
        ids = encode_content(self.tokenizer, reply.message)
        text = reply.message.content if sampling.stop else None
        if reply.finish == "stop" and len(ids) < sampling.max_tokens:
            return Completion((*ids, stop_id(self.tokenizer, reply.message)), (), "stop", text=text)
        return Completion(tuple(ids[: sampling.max_tokens]), (), "length", text=text)
