"""Speculative decoding: guesses of the next tokens, which the model checks in one pass (Leviathan et al. 2023).

    Engine(model, tokenizer=tokenizer, drafter=PromptLookup())
    Engine(model, tokenizer=tokenizer, drafter=ModelDrafter(small, tokenizer))

Every place is sampled as it would be without guesses, from the model's own logits with the request's own uniform of
that step; a guess is accepted while it equals what was sampled. So no token and no log-probability depends on a
drafter, at any temperature, with penalties, grammars and stop texts. A drafter can only save passes, or waste work; how
much it is asked for follows what was accepted (`Pace`), and one that fails is asked no more. Where a grammar leaves no
choice nobody is asked: what it forces is checked like a guess, with or without a drafter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from herd.generate.protocol import Sampling

# The cost of one more token in a pass of one request, in such passes: what the bench measured (docs/generation.md).
CHECKING = 0.03
_MEMORY = 0.9  # what an acceptance counts for after the next check
_RETRY = 16  # tokens after which a request that drafting did not pay for is tried again


class Target(NamedTuple):
    """The model whose text is to be guessed, and the cache that it has."""

    vocab_size: int
    fingerprint: str  # of its tokenizer; "" if the engine knows none
    cache_tokens: int
    weight_bytes: int  # read for every pass


class Wanted(NamedTuple):
    """A request that guesses are wanted for."""

    number: int
    tokens: Sequence[int]  # prompt and continuation so far; its beginning never changes
    n_said: int  # tokens of the continuation: the step whose uniform decides the next one
    sampling: Sampling
    most: int  # guesses at most


class Drafts(Protocol):
    """A drafter at work for one batch of requests."""

    cost: float  # of one guess, in passes of the model over one token

    def draft(self, wanted: Sequence[Wanted]) -> list[list[int]]:
        """Guesses of what each goes on with, `most` at most, none where there is no good one."""

    def end(self, number: int) -> None:
        """This request is over, or none of its kind was ever wanted."""

    def forget(self) -> None:
        """Forget what was computed: the weights have changed. Requests may be under way."""

    def check(self) -> None:
        """No request is under way: assert that nothing of any is held."""


class Drafter(Protocol):
    """How guesses are made. One drafter can serve several batches."""

    max_draft: int  # guesses at once, at most

    def check(self, target: Target) -> None:
        """Raises SettingError for a model that it cannot draft for."""

    def open(self, target: Target) -> Drafts:
        """Begin on a batch. Raises SettingError as `check` does."""


@dataclass
class Statistics:
    """What drafting came to, since the beginning."""

    drafted: int = 0  # guesses of the drafter that were checked
    accepted: int = 0  # of these
    forced: int = 0  # tokens that grammars left no choice about, and that came several in a pass
    failure: str = ""  # why the drafter is asked no more


class Pace:
    """How many guesses one request is worth: those that promise the most tokens for the time."""

    def __init__(self, cost: float) -> None:
        self._each = cost + CHECKING
        self._hits, self._tries = 0.7, 1.0  # a beginning that lets the first checks decide
        self._idle = 0

    def length(self, most: int) -> int:
        """Guesses to ask for now: n of them, accepted at a rate a, make (1 - a^(n+1)) / (1 - a) tokens (eq. 1)."""
        rate = min(self._hits / self._tries, 0.99)
        worth = [(1 - rate ** (n + 1)) / (1 - rate) / (1 + n * self._each) for n in range(most + 1)]
        best = max(range(most + 1), key=worth.__getitem__)
        if best or not most:
            return best
        self._idle += 1
        return int(self._idle % _RETRY == 0)

    def checked(self, drafted: int, accepted: int) -> None:
        """Tell what became of so many guesses; those behind the first wrong one say nothing."""
        self._hits = self._hits * _MEMORY + accepted
        self._tries = self._tries * _MEMORY + accepted + (accepted < drafted)


class Speculation:
    """Asks a drafter for one batch, and keeps account."""

    def __init__(self, drafter: Drafter, target: Target, statistics: Statistics) -> None:
        self.statistics = statistics
        drafts = drafter.open(target)
        self._drafts: Drafts | None = drafts
        self._cost, self._most, self._vocab_size = drafts.cost, drafter.max_draft, target.vocab_size
        self._paces: dict[int, Pace] = {}

    def propose(self, wanted: Sequence[Wanted]) -> Mapping[int, Sequence[int]]:
        """Guesses by the number of the request."""
        if self._drafts is None:
            return {}
        asked = []
        for one in wanted:
            pace = self._paces.setdefault(one.number, Pace(self._cost))
            if most := pace.length(min(one.most, self._most)):
                asked.append(one._replace(most=most))
        if not asked:
            return {}
        try:
            found = self._drafts.draft(asked)
        except Exception as error:  # nothing depends on guesses: what fails here costs speed, not answers
            self.stop(f"{type(error).__name__}: {error}")
            return {}
        sound = (self._sound(guesses[: one.most]) for one, guesses in zip(asked, found, strict=True))
        return {one.number: guesses for one, guesses in zip(asked, sound, strict=True) if guesses}

    def _sound(self, guesses: list[int]) -> list[int]:
        """Up to the first that is no id of the model's."""
        wrong = (i for i, token in enumerate(guesses) if not 0 <= token < self._vocab_size)
        return guesses[: next(wrong, len(guesses))]

    def checked(self, number: int, drafted: int, accepted: int) -> None:
        """So many guesses for a request were checked, and so many were what it said."""
        self.statistics.drafted += drafted
        self.statistics.accepted += accepted
        self._paces[number].checked(drafted, accepted)

    def end(self, number: int) -> None:
        """A request is over. After the last of them the drafter's own books are looked at."""
        if self._paces.pop(number, None) is None or self._drafts is None:
            return
        try:
            self._drafts.end(number)
            if not self._paces:
                self._drafts.check()
        except Exception as error:  # as in `propose`
            self.stop(f"{type(error).__name__}: {error}")

    def forget(self) -> None:
        """The weights have changed."""
        if self._drafts is not None:
            self._drafts.forget()

    def stop(self, reason: str) -> None:
        """Ask no more; what runs goes on without guesses."""
        self.statistics.failure, self._drafts = reason, None
