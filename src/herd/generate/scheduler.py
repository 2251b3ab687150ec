"""Who computes what in the next step of the engine. Numbers only: no tensors, no model, no clock.

    scheduler.submit(number, prompt, limit)
    while scheduler.busy:
        plan = scheduler.plan()                         # copy pages, then compute these chunks in one pass
        for number, chunk in scheduler.computed(plan):  # those that have a token to be sampled
            scheduler.record(number, [token])           # or scheduler.end(number)

Admission: by priority, then arrival, and only while the pages that a request can come to need are there for sure, so
that nothing that runs is ever stopped or swapped out (paper section 4.2.2: only what fits at its longest is admitted).
Nobody passes a request that is next and does not fit. A request is not passed over for ever either: at least every
`patience`-th admission goes to the one that waits longest, so with k older ones in front it is admitted within
(k + 1) * patience admissions whatever arrives; and all that run advance, so that there is room again in the end.

A step: every running request that has its prompt computed gets one token, then prompts are computed in order of
admission, in chunks, as far as the token budget goes; a quarter of it is for those that are short enough for that, so
that a long prompt does not hold them up. A prompt waits while its next page is being computed for an earlier one; equal
prompts are computed once and forked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from herd.errors import BusyError, InputError
from herd.generate.jobs import Chunk, Job, Plan, Waiting
from herd.generate.pages import ROOT, Key, Pages, Table, chained
from herd.generate.settings import SchedulerSettings

_NO_DRAFTS: Mapping[int, Sequence[int]] = {}


class Scheduler:
    """Requests under numbers of the caller's, over the pages of `pool`.

    `page_bytes`: what a page takes in all layers, to be told to whom it is too little; 0: not known.
    """

    def __init__(self, pool: Pages, settings: SchedulerSettings, page_bytes: int = 0) -> None:
        self.pool, self.settings, self._page_bytes = pool, settings, page_bytes
        self._running: dict[int, Job] = {}  # in the order of admission
        self._waiting = Waiting(settings.patience)
        self._reserved = 0  # of all that run

    @property
    def busy(self) -> bool:
        return bool(self._running or self._waiting)

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    def pages_of(self, n_prompt: int, limit: int) -> int:
        """Pages that a request can come to need. The last token sampled is never computed."""
        return self.pool.needed(n_prompt + limit - 1)

    def submit(self, number: int, prompt: Sequence[int], limit: int, *, priority: int = 0, share: bool = True) -> None:
        """Queue a request for `limit` tokens at most. Lower priorities go first.

        `share`: known pages may stand for computing. Raises BusyError when the queue is full, InputError for a request
        that the pool can never hold.
        """
        assert number not in self._running, "a number is used twice"
        assert number not in self._waiting, "a number is used twice"
        worst = self.pages_of(len(prompt), limit)
        if worst > self.pool.count:
            raise self._too_large(len(prompt), limit, worst)
        if len(self._waiting) >= self.settings.max_waiting:
            raise BusyError(
                f"{len(self._waiting)} requests wait already", where="the engine's queue", mend="try again later"
            )
        share = share and self.settings.share
        keys = list(self.pool.keys(Table(), prompt))
        digest = chained(keys[-1] if keys else ROOT, prompt[len(keys) * self.pool.size :])
        self._waiting.add(Job(number, list(prompt), len(prompt), limit, worst, keys, digest, share), priority)

    @property
    def crowded(self) -> bool:
        """Whether so many run that a pass has work enough, and drafts that may be wrong do not pay."""
        return len(self._running) > self.settings.max_drafting

    def draftable(self) -> list[tuple[int, Sequence[int], int]]:
        """The requests that the next plan takes drafts of: their tokens so far, and how many drafts at most."""
        decoding = [job for job in self._running.values() if job.decodes]
        # half of the budget stays for prompts
        each = (self.settings.token_budget - len(decoding)) // 2 // max(len(decoding), 1)
        return [(job.number, job.tokens, most) for job in decoding if (most := min(each, job.draftable)) > 0]

    def plan(self, drafts: Mapping[int, Sequence[int]] = _NO_DRAFTS) -> Plan:
        """What the next pass computes. Everything in it is counted as held, so a plan is to be carried out.

        drafts: for requests that `draftable` named, guesses of what they say next, no more than it said.
        """
        self._admit()
        copies: list[tuple[int, int]] = []
        chunks: list[Chunk] = []
        budget = self.settings.token_budget
        for job in reversed(self._running.values()):  # a fork before whom it was forked from: its copy is reserved
            if job.decodes:
                guesses = tuple(drafts.get(job.number, ()))
                assert len(guesses) <= max(job.draftable, 0), "more is drafted than may be said"
                start, stop = len(job.tokens) - 1, len(job.tokens) + len(guesses)
                copies += self._extend(job, stop - start)
                chunks.append(Chunk(job.number, start, stop, job.table, guesses))
                budget -= stop - start
        claimed: set[Key] = set()
        prompts = [job for job in self._running.values() if not job.decodes and not self._comes_by_itself(job, claimed)]
        for job, n_tokens in _shares(prompts, budget):
            start = job.table.length
            copies += self._extend(job, n_tokens)
            chunks.append(Chunk(job.number, start, start + n_tokens, job.table))
        return Plan(copies, chunks)

    def cached(self, number: int) -> int:
        """Tokens of a running request's prompt that were not computed for it, because their pages were known."""
        return self._running[number].cached

    def tokens(self, chunk: Chunk) -> list[int]:
        """The tokens that a chunk computes."""
        return [*self._running[chunk.number].tokens[chunk.start : chunk.stop], *chunk.drafts]

    def computed(self, plan: Plan) -> list[tuple[int, Chunk]]:
        """A plan was carried out: who is to be given a token, after which chunk. Ended ones are left out."""
        ready: list[tuple[int, Chunk]] = []
        for chunk in plan.chunks:
            job = self._running.get(chunk.number)
            if job is None or job.table is not chunk.table:
                continue
            self.pool.publish(job.table, job.tokens)
            if chunk.stop - len(chunk.drafts) == len(job.tokens):
                ready.append((job.number, chunk))
                if not job.decodes and job.share:
                    ready += [(twin.number, chunk) for twin in self._fork(job)]
        return ready

    def record(self, number: int, tokens: Sequence[int]) -> None:
        """A running request goes on with `tokens`, the last of which the next plan computes.

        Those before it are drafts that were accepted; the pages of the others are taken back.
        """
        job = self._running[number]
        job.tokens += tokens
        self._take(job, -self.pool.truncate(job.table, len(job.tokens) - 1))

    def end(self, number: int) -> bool:
        """A request is done, or nobody wants it any more, waiting or running; whether it was there."""
        if self._waiting.remove(number):
            return True
        job = self._running.pop(number, None)
        if job is None:
            return False
        self._reserved -= job.reserved
        self.pool.drop(job.table)
        return True

    def check(self) -> None:
        """Assert the invariants: no page is lost, and what runs can be given all that it may come to need."""
        self.pool.check(job.table for job in self._running.values())
        assert self._reserved == sum(job.reserved for job in self._running.values())
        assert 0 <= self._reserved <= self.pool.available, "more is promised than is there"

    def _too_large(self, n_prompt: int, limit: int, worst: int) -> InputError:
        room = self.pool.count * self.pool.size
        shorter = f"shorten the prompt to {room} tokens or fewer"
        size = f" ({worst * self._page_bytes:,} bytes of {self.pool.count * self._page_bytes:,})"
        return InputError(
            f"prompt and continuation take up to {worst} pages of {self.pool.size} tokens, the cache has "
            f"{self.pool.count}{size if self._page_bytes else ''}",
            where=f"a prompt of {n_prompt} tokens with max_tokens {limit}",
            mend=(f"lower max_tokens to {room - n_prompt + 1}" if n_prompt <= room else shorter)
            + f", or give the engine cache_tokens={worst * self.pool.size}",
        )

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self.settings.max_running:
            job = self._waiting.next()
            job.table = self.pool.begin(job.tokens) if job.share else Table()
            job.reserved, job.cached = job.worst - len(job.table.pages), job.table.length
            if self._reserved + job.reserved > self.pool.available:
                self.pool.drop(job.table)
                return
            self._reserved += job.reserved
            self._waiting.admit(job)
            self._running[job.number] = job

    def _extend(self, job: Job, n: int) -> list[tuple[int, int]]:
        before = len(job.table.pages)
        copies = self.pool.extend(job.table, n)
        self._take(job, len(job.table.pages) - before + len(copies))
        return copies

    def _take(self, job: Job, n: int) -> None:
        job.reserved -= n
        self._reserved -= n

    def _comes_by_itself(self, job: Job, claimed: set[Key]) -> bool:
        """Whether the next page of a prompt is being computed for an earlier one; if not, its pages are claimed."""
        if not job.share:
            return False
        found = self.pool.follow(job.table, job.tokens)
        job.cached += found * self.pool.size
        self._take(job, found)
        if job.digest in claimed:
            return True
        keys = job.page_keys[job.table.length // self.pool.size :]  # of the pages that are still to be computed
        if job.table.length % self.pool.size == 0 and keys and keys[0] in claimed:
            return True
        claimed.update(keys)
        claimed.add(job.digest)
        return False

    def _fork(self, leader: Job) -> list[Job]:
        """Give the computed prompt of `leader` to all that wait for the same; they are ready for their first token."""
        twins = [
            job
            for job in self._running.values()
            if job is not leader and job.share and job.digest == leader.digest and not job.decodes
        ]
        for twin in twins:
            self.pool.drop(twin.table)
            twin.table, twin.cached = self.pool.fork(leader.table), twin.n_prompt
            self._take(twin, twin.reserved - (twin.worst - twin.table.length // self.pool.size))
        return twins


def _shares(prompts: Sequence[Job], budget: int) -> list[tuple[Job, int]]:
    """Who of these gets how many tokens of the budget, in this order: short prompts out of a quarter, then all."""
    quarter, shares = budget // 4, {}
    for job in prompts:
        if job.missing <= quarter:
            shares[job] = job.missing
            quarter -= job.missing
    budget -= sum(shares.values())
    for job in prompts:
        if job not in shares and budget:
            shares[job] = min(job.missing, budget)
            budget -= shares[job]
    return [(job, shares[job]) for job in prompts if job in shares]
