"""The pool of pages under random use, beside a model that keeps what every page holds."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from herd.errors import SettingError
from herd.generate.pages import Pages, Table, chained

SIZE = 3


class Pool(RuleBasedStateMachine):
    """Sequences that begin, grow, fork and end. `written` is what the tensors would hold, position by position."""

    def __init__(self):
        super().__init__()
        self.pool = Pages(12, SIZE)
        self.written = {}  # (page, offset) -> token
        self.sequences = []  # [table, tokens]

    def tokens_there(self, table, tokens):
        """The longest beginning of `tokens` that its pages hold."""
        for place in range(table.length):
            if self.written.get((table.pages[place // SIZE], place % SIZE)) != tokens[place]:
                return tokens[:place]
        return tokens[: table.length]

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=11))
    def begin(self, tokens):
        table = self.pool.begin(tokens)
        assert table.length < len(tokens)
        assert self.tokens_there(table, tokens) == tokens[: table.length]  # what was found is what is wanted
        if self.pool.needed(len(tokens)) - len(table.pages) > self.pool.available:
            self.pool.drop(table)
            return
        known = table.length
        self.pool.extend(table, len(tokens) - known)
        for place in range(known, len(tokens)):
            self.written[table.pages[place // SIZE], place % SIZE] = tokens[place]
        self.pool.publish(table, tokens)
        self.sequences.append([table, tokens])

    @precondition(lambda self: self.sequences and self.pool.available)
    @rule(data=st.data(), token=st.integers(0, 1))
    def grow(self, data, token):
        sequence = data.draw(st.sampled_from(self.sequences))
        table, tokens = sequence
        place = len(tokens)
        shared = sum(table.pages[-1] in other.pages for other, _ in self.sequences) > 1 and place % SIZE
        copies = self.pool.extend(table, 1)
        assert bool(copies) == bool(shared)
        for old, new in copies:
            for offset in range(place % SIZE):
                self.written[new, offset] = self.written[old, offset]
        self.written[table.pages[place // SIZE], place % SIZE] = token
        sequence[1] = [*tokens, token]
        self.pool.publish(table, sequence[1])

    @precondition(lambda self: self.sequences and self.pool.available >= 3)
    @rule(data=st.data(), guesses=st.lists(st.integers(0, 1), min_size=1, max_size=5), right=st.integers(0, 4))
    def guess(self, data, guesses, right):
        """Write some tokens more, and take those back that were wrong."""
        sequence = data.draw(st.sampled_from(self.sequences))
        table, tokens = sequence
        before = self.pool.available
        for old, new in self.pool.extend(table, len(guesses)):
            for offset in range(SIZE):
                self.written[new, offset] = self.written.get((old, offset))
        for place, token in enumerate(guesses, len(tokens)):
            self.written[table.pages[place // SIZE], place % SIZE] = token
        taken = before - self.pool.available
        right = min(right, len(guesses))
        kept = self.pool.needed(len(tokens) + right)
        assert self.pool.truncate(table, len(tokens) + right) == self.pool.needed(len(tokens) + len(guesses)) - kept
        assert self.pool.available <= before
        assert taken <= 3
        sequence[1] = [*tokens, *guesses[:right]]
        self.pool.publish(table, sequence[1])

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def fork(self, data):
        table, tokens = data.draw(st.sampled_from(self.sequences))
        if len(self.sequences) < 8:
            self.sequences.append([self.pool.fork(table), list(tokens)])

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def drop(self, data):
        table, _ = self.sequences.pop(data.draw(st.integers(0, len(self.sequences) - 1)))
        self.pool.drop(table)

    @rule()
    def forget(self):
        self.pool.forget()
        assert self.pool.available == self.pool.count - len({p for table, _ in self.sequences for p in table.pages})

    @invariant()
    def every_sequence_finds_its_own_tokens(self):
        self.pool.check(table for table, _ in self.sequences)
        for table, tokens in self.sequences:
            assert self.tokens_there(table, tokens) == tokens


Pool.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestPool = Pool.TestCase


def compute(pool, tokens):
    table = pool.begin(tokens)
    known = table.length
    pool.extend(table, len(tokens) - known)
    pool.publish(table, tokens)
    return table, known


def test_a_known_beginning_is_found_but_never_the_last_token():
    pool = Pages(20, 4)
    first, known = compute(pool, list(range(12)))
    assert known == 0
    assert compute(pool, list(range(12)))[1] == 8
    assert compute(pool, list(range(13)))[1] == 12
    assert compute(pool, [9, *range(1, 12)])[1] == 0
    assert compute(pool, [*range(7), 99, *range(8, 12)])[1] == 4
    pool.drop(first)
    assert compute(pool, list(range(13)))[1] == 12


def test_the_least_recently_used_page_is_given_away_first_and_ends_before_beginnings():
    pool = Pages(4, 2)
    old, _ = compute(pool, [1, 2, 3, 4])
    new, _ = compute(pool, [5, 6, 7, 8])
    pool.drop(old)
    pool.drop(new)
    taken, _ = compute(pool, [9, 9])
    assert [pool.begin([*tokens, 0]).length for tokens in ([1, 2, 3, 4], [5, 6, 7, 8])] == [2, 4]
    assert taken.length == 2


def test_a_table_follows_pages_that_became_known():
    pool = Pages(8, 2)
    tokens = [1, 2, 3, 4, 5]
    late = pool.begin(tokens)
    assert late.length == 0
    table, _ = compute(pool, tokens)
    assert pool.follow(late, tokens) == 2
    assert late.pages == table.pages[:2]
    assert late.length == 4
    pool.check([late, table])


@pytest.mark.parametrize(("count", "size"), [(0, 4), (4, 0), (-1, 1)])
def test_a_pool_of_nothing_is_refused(count, size):
    with pytest.raises(SettingError):
        Pages(count, size)


def test_check_finds_a_leak():
    pool = Pages(4, 2)
    table, _ = compute(pool, [1, 2, 3])
    pool.check([table])
    for wrong in ([], [table, table], [Table(table.pages[:1], 2, [])]):
        with pytest.raises(AssertionError):
            pool.check(wrong)


def test_keys_depend_on_all_that_came_before():
    assert chained(chained(b"", [1, 2]), [3, 4]) == chained(chained(b"", [1, 2]), (3, 4))
    assert chained(chained(b"", [1, 2]), [3, 4]) != chained(chained(b"", [2, 1]), [3, 4])
