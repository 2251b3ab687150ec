"""Drawing candidates: k replies of the policy to each prompt (paper 4.2.2, the sampling half of rejection sampling).

    candidates = draw(generator, tokenizer, tasks, settings, folder, policy="3f2a...", progress=progress)

Whatever implements `Generator` can draw: the embedded engine, a served teacher, a cluster. The work is kept prompt
batch by prompt batch in a file named by everything that decides its content (policy, settings, prompts), so a killed
draw goes on where it stopped and never mixes replies of two policies.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from herd.config import fingerprint, to_plain
from herd.errors import FormatError, InputError, NoEffectError
from herd.files import read_jsonl, storage_errors, write_jsonl
from herd.generate.protocol import Generator, Request, Sampling
from herd.posttrain.records import Candidate, Prompt, candidate_from_row, candidate_to_row
from herd.posttrain.settings import DrawSettings
from herd.progress import Progress, Silent
from herd.text.chat import encode_prompt
from herd.text.message import Message
from herd.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Candidates:
    """The k replies to each prompt, in the order of the prompts and then of their index."""

    k: int
    all: tuple[Candidate, ...]

    def by_task(self) -> Iterator[tuple[str, tuple[Candidate, ...]]]:
        for start in range(0, len(self.all), self.k):
            yield self.all[start].task_id, self.all[start : start + self.k]

    def __len__(self) -> int:
        return len(self.all)


def seed_of(seed: int, task_id: str, index: int) -> int:
    """The seed of one reply: the same in every run, different for every (seed, prompt, index)."""
    digest = hashlib.blake2b(f"{seed}\0{task_id}\0{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # 63 bits: fits a signed 64-bit integer


def check_prompts(tasks: Sequence[Prompt]) -> None:
    """Raise InputError for no prompts, an id used twice, or a prompt that does not end with the user's turn."""
    if not tasks:
        raise InputError("there are no prompts to draw replies for", mend="give at least one task")
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise InputError(f"the task id '{task.id}' is used twice", mend="give every prompt its own id")
        seen.add(task.id)
        if not task.messages or task.messages[-1].role == "assistant":
            raise InputError("a prompt must end before the assistant's turn", where=f"task {task.id}")


def draw_key(tasks: Sequence[Prompt], settings: DrawSettings, tokenizer: Tokenizer, policy: str) -> str:
    """A hash of everything that decides which replies are drawn; `policy` names the generator's weights."""
    sampling = {part.name: getattr(settings, part.name) for part in fields(settings)}
    # Replies do not depend on how prompts are batched only up to rounding; the batches belong to the key.
    parts = [policy, tokenizer.fingerprint, sampling, [[task.id, _prompt_key(task.messages)] for task in tasks]]
    return fingerprint(to_plain(parts))


def draw(
    generator: Generator,
    tokenizer: Tokenizer,
    tasks: Sequence[Prompt],
    settings: DrawSettings,
    folder: Path,
    *,
    policy: str = "",
    progress: Progress | None = None,
) -> Candidates:
    """Draw `settings.k` replies to each task and keep them in `folder/candidates-<key>.jsonl`.

    The k requests of a prompt are handed over together, so that an engine can share the prompt's pages (paper 4.2.2).
    Raises InputError for unusable prompts and NoEffectError when every reply is cut off at `max_tokens`.
    """
    progress = progress or Silent()
    check_prompts(tasks)
    key = draw_key(tasks, settings, tokenizer, policy)
    whole, part = folder / f"candidates-{key}.jsonl", folder / f"candidates-{key}.part.jsonl"
    if not whole.exists():
        _draw_batches(generator, tokenizer, tasks, settings, part, progress)
        with storage_errors(whole):
            os.replace(part, whole)
    candidates = read_candidates(whole, settings.k)
    if all(candidate.finish == "length" for candidate in candidates.all):
        raise NoEffectError(
            f"none of {len(candidates)} replies ended within {settings.max_tokens} tokens",
            where=str(whole),
            mend="raise draw.max_tokens, or train the policy on dialogues first: it does not know where to stop",
        )
    return candidates


def read_candidates(path: Path, k: int) -> Candidates:
    """Read a finished file of candidates. Raises FormatError when it is cut short."""
    try:
        rows = tuple(candidate_from_row(row) for row in read_jsonl(path))
    except (KeyError, TypeError) as error:
        raise FormatError(f"not a row of candidates: {error}", where=str(path)) from error
    if not rows or len(rows) % k:
        raise FormatError(f"{len(rows)} replies do not make groups of {k}", where=str(path), mend="delete the file")
    return Candidates(k, rows)


def _draw_batches(
    generator: Generator,
    tokenizer: Tokenizer,
    tasks: Sequence[Prompt],
    settings: DrawSettings,
    part: Path,
    progress: Progress,
) -> None:
    done = _recover(part, tasks, settings)
    total = len(tasks) * settings.k
    part.parent.mkdir(parents=True, exist_ok=True)
    with storage_errors(part), open(part, "ab") as handle:
        for start in range(done, len(tasks), settings.prompts_per_batch):
            batch = tasks[start : start + settings.prompts_per_batch]
            rows = [candidate_to_row(one) for one in _draw_batch(generator, tokenizer, batch, settings)]
            handle.write(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
            handle.flush()
            os.fsync(handle.fileno())
            progress.update((start + len(batch)) * settings.k, total, "replies")


def _recover(part: Path, tasks: Sequence[Prompt], settings: DrawSettings) -> int:
    """How many prompts are done, whole batches only; the file is cut back to those.

    Batches are drawn again whole, never in part, so that a resumed draw equals one never stopped to the last bit.
    """
    if not part.exists():
        return 0
    rows = []
    with open(part, "rb") as handle:
        for line in handle:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break  # the line under way when the process was killed
    per_batch = settings.prompts_per_batch * settings.k
    count = len(rows) if len(rows) == len(tasks) * settings.k else len(rows) // per_batch * per_batch
    write_jsonl(part, rows[:count])
    return count // settings.k


def _draw_batch(
    generator: Generator, tokenizer: Tokenizer, tasks: Sequence[Prompt], settings: DrawSettings
) -> Iterator[Candidate]:
    requests = []
    for task in tasks:
        prompt = tuple(encode_prompt(tokenizer, task.messages))
        for index in range(settings.k):
            sampling = Sampling(
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_tokens=settings.max_tokens,
                stop_ids=tuple(tokenizer.stop_ids),
                seed=seed_of(settings.seed, task.id, index),
            )
            requests.append(Request(prompt, sampling))
    completions = generator.generate(requests, Silent())
    for place, completion in enumerate(completions):
        task, index = tasks[place // settings.k], place % settings.k
        tokens = tuple(completion.tokens)
        text = tokenizer.decode([token for token in tokens if token not in tokenizer.stop_ids])
        yield Candidate(task.id, index, tokens, tuple(completion.logprobs), text, completion.finish)


def _prompt_key(messages: Sequence[Message]) -> str:
    text = json.dumps([[message.role, message.content, [c.json() for c in message.tool_calls]] for message in messages])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
