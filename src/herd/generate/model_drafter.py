"""Guesses of a small model: it reads what the large one reads, and says what comes next.

Its keys and values lie in pages of its own and are kept in step with each request: what it guessed wrongly is taken
back, what was said meanwhile is computed with the next guess. It samples with the settings of the request and the same
uniform that will decide the large model's token, so that two models of like opinion draw the same token at any
temperature. Penalties, biases and grammars it does not know; they cost acceptance where they matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from herd.devices import memory_errors
from herd.errors import SettingError
from herd.generate.jobs import Chunk
from herd.generate.paged_cache import PagedCache
from herd.generate.pages import PAGE, Pages, Table
from herd.generate.passes import Passes
from herd.generate.sampling import Chances, sample, uniforms
from herd.generate.speculation import Target, Wanted
from herd.llama.model import Llama
from herd.text.tokenizer import Tokenizer

_CATCH_UP = 1024  # tokens of prompts that it reads in one step of the engine, as the engine's own token_budget
_LESS = "give the engine fewer cache_tokens, or no drafter"


class ModelDrafter:
    """Drafts with `model`, whose tokenizer must be that of the model it drafts for."""

    def __init__(self, model: Llama, tokenizer: Tokenizer | None = None, max_draft: int = 7) -> None:
        if max_draft < 1:
            raise SettingError(f"max_draft is {max_draft}", where="max_draft", mend="give 1 at least")
        self._model, self.max_draft = model, max_draft
        self._fingerprint = tokenizer.fingerprint if tokenizer is not None else ""

    def check(self, target: Target) -> None:
        """Raises SettingError for a model of another vocabulary or tokenizer."""
        here, there = self._fingerprint, target.fingerprint
        if here and there and here != there:
            raise SettingError(
                f"the drafter's tokenizer is {here[:16]}, and the model's {there[:16]}",
                where="drafter",
                mend="take a drafter of the same herd: its ids must mean the same",
            )
        if self._model.config.vocab_size != target.vocab_size:
            raise SettingError(
                f"the drafter has {self._model.config.vocab_size} ids (tokenizer {here[:16] or 'unknown'}), and the "
                f"model {target.vocab_size} (tokenizer {there[:16] or 'unknown'})",
                where="drafter",
                mend="take a drafter of the same herd: its ids must mean the same",
            )

    def open(self, target: Target) -> ModelDrafts:
        """Raises DeviceError if its pages do not fit into memory."""
        self.check(target)
        # A pass over one token takes as long as the weights take to be read.
        return ModelDrafts(self._model, target.cache_tokens, weight_bytes(self._model) / max(target.weight_bytes, 1))


@dataclass(eq=False)
class _Reader:
    """How far the small model has read one request."""

    table: Table
    known: int = 0  # tokens up to which `read` is what the request said
    read: list[int] = field(default_factory=list)  # of all positions of the table


class ModelDrafts:
    """The small model at work for one batch of requests."""

    def __init__(self, model: Llama, cache_tokens: int, cost: float) -> None:
        self.cost = cost
        weight = model.model.norm.weight
        self.pool = Pages(max(1, cache_tokens // PAGE), PAGE)
        with memory_errors(_LESS):
            self._cache = PagedCache(model.config, self.pool.count, PAGE, weight.dtype, weight.device)
        self._passes, self._config = Passes(model, self._cache), model.config
        self.readers: dict[int, _Reader] = {}

    def draft(self, wanted: Sequence[Wanted]) -> list[list[int]]:
        guesses: list[list[int]] = [[] for _ in wanted]
        with memory_errors(_LESS), torch.inference_mode():
            ready, logits = self._catch_up(wanted)
            while ready:
                tokens = _sampled(logits, [(wanted[i], len(guesses[i])) for i in ready])
                for i, token in zip(ready, tokens, strict=True):
                    guesses[i].append(token)
                ready = [
                    i
                    for i in ready
                    if len(guesses[i]) < wanted[i].most and guesses[i][-1] not in wanted[i].sampling.stop_ids
                ]
                if ready:
                    logits = self._compute([(wanted[i].number, guesses[i][-1:]) for i in ready])
        return guesses

    def end(self, number: int) -> None:
        reader = self.readers.pop(number, None)
        if reader is not None:
            self.pool.drop(reader.table)

    def forget(self) -> None:
        for number in list(self.readers):  # those under way are read anew
            self.end(number)
        self.pool.forget()
        self._passes.forget()

    def check(self) -> None:
        assert not self.readers, "a request that is over is still read"
        self.pool.check()

    def _catch_up(self, wanted: Sequence[Wanted]) -> tuple[list[int], Tensor]:
        """Read what was said meanwhile. Which of those wanted are ready for a guess, and the logits of these [R, V].

        A long prompt is read over several steps; one that there is no room for is left out.
        """
        parts, whole, left = [], [], _CATCH_UP
        readers = [self._reader(one) for one in wanted]
        available = self.pool.available
        for i, (one, reader) in enumerate(zip(wanted, readers, strict=True)):
            missing = len(one.tokens) - reader.table.length
            now = min(missing, left)
            length = reader.table.length + now + (one.most - 1 if now == missing else 0)  # the last guess is not read
            pages = self.pool.needed(length) - len(reader.table.pages)
            if not now or length > self._config.max_seq_len or pages > available:
                continue
            parts.append((one.number, one.tokens[reader.table.length : reader.table.length + now]))
            left, available = left - now, available - pages
            if now == missing:
                whole.append((i, len(parts) - 1))
        if not parts:
            return [], torch.empty(0)
        logits = self._compute(parts)
        for one, reader in zip(wanted, readers, strict=True):
            reader.known = reader.table.length
            self.pool.publish(reader.table, one.tokens)
        return [i for i, _ in whole], logits[[row for _, row in whole]]

    def _reader(self, one: Wanted) -> _Reader:
        """The reader of a request, without what it guessed wrongly."""
        reader = self.readers.get(one.number)
        if reader is None:
            table = self.pool.begin(one.tokens)
            reader = self.readers[one.number] = _Reader(table, table.length, list(one.tokens[: table.length]))
        agree = reader.known
        while agree < min(len(reader.read), len(one.tokens) - 1) and reader.read[agree] == one.tokens[agree]:
            agree += 1
        del reader.read[agree:]
        self.pool.truncate(reader.table, agree)
        reader.known = agree
        return reader

    def _compute(self, parts: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
        """Read the next tokens of some requests; the logits [P, V] behind the last token of each."""
        chunks, tokens_of = [], {}
        for number, tokens in parts:
            reader = self.readers[number]
            start = reader.table.length
            copies = self.pool.extend(reader.table, len(tokens))
            assert not copies, "only full pages are shared here"
            reader.read += tokens
            chunks.append(Chunk(number, start, reader.table.length, reader.table))
            tokens_of[number] = tokens
        ordered, hidden_ND = self._passes.run(chunks, lambda chunk: tokens_of[chunk.number])
        stops = np.cumsum([chunk.n_tokens for chunk in ordered]).tolist()
        last = {chunk.number: stop - 1 for chunk, stop in zip(ordered, stops, strict=True)}
        return self._passes.model.logits(hidden_ND[[last[number] for number, _ in parts]])


def weight_bytes(model: Llama) -> int:
    """Bytes of a model's weights."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _sampled(logits_RV: Tensor, rows: Sequence[tuple[Wanted, int]]) -> list[int]:
    """What each request would say next, by these logits and its own settings and uniforms."""
    how = [one.sampling for one, _ in rows]
    seeds = np.array([each.seed % 2**64 for each in how], dtype=np.uint64)
    steps = np.array([one.n_said + n for one, n in rows])
    chances = Chances(
        np.array([each.temperature for each in how], dtype=np.float32),
        np.array([each.top_p for each in how], dtype=np.float32),
        uniforms(seeds, steps),
        np.array([each.top_k for each in how]) if any(each.top_k for each in how) else None,
        np.array([each.min_p for each in how], dtype=np.float32) if any(each.min_p for each in how) else None,
    )
    tokens, _ = sample(logits_RV, chances)
    return [int(token) for token in tokens.tolist()]
