"""The scheduler on random streams of requests, beside pages that hold tokens instead of tensors."""

import dataclasses
from collections import Counter
from itertools import product
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.errors import BusyError, InputError, SettingError
from herd.generate.pages import Pages
from herd.generate.scheduler import Scheduler
from herd.generate.settings import SchedulerSettings

SIZE = 4


class Machine:
    """Carries plans out: a page holds the tokens of its positions, and the next token is made of all that is seen."""

    def __init__(self, count=60, **changed):
        defaults = {"max_running": 4, "token_budget": 9, "max_waiting": 1000}
        self.scheduler = Scheduler(Pages(count, SIZE), SchedulerSettings(**(defaults | changed)))
        self.cells = np.full((count, SIZE), -1)
        self.tokens, self.prompts, self.limits = {}, {}, {}
        self.admitted = []  # in the order in which they were first computed
        self.pages_computed = Counter()  # by all tokens up to the end of the page
        self.n_computed = 0
        self.done = {}

    def submit(self, number, prompt, limit, **how):
        self.scheduler.submit(number, prompt, limit, **how)
        self.tokens[number], self.prompts[number], self.limits[number] = list(prompt), list(prompt), limit

    def step(self, cancel=(), right=None):
        """right: so many guesses of each are right, and then one is wrong; None: nobody guesses."""
        plan = self.scheduler.plan({} if right is None else self.guesses(right))
        assert plan.n_tokens <= self.scheduler.settings.token_budget
        assert len(plan.chunks) <= self.scheduler.settings.max_running
        assert plan.chunks or not self.scheduler.busy  # every step computes something
        for old, new in plan.copies:
            self.cells[new] = self.cells[old]
        following_of = {chunk: self.compute(chunk) for chunk in plan.chunks}
        for number in cancel:
            self.scheduler.end(number)
        for number, chunk in self.scheduler.computed(plan):
            assert chunk.stop == len(self.tokens[number]) + len(chunk.drafts)
            self.sample(number, following_of[chunk], chunk.drafts)
        self.scheduler.check()

    def guesses(self, right):
        found = {}
        for number, tokens, most in self.scheduler.draftable():
            assert list(tokens) == self.tokens[number]
            tail = list(tokens)
            for _ in range(min(right, most)):
                tail.append(following(tail))
            found[number] = [*tail[len(tokens) :], 99][:most]
        return found

    def compute(self, chunk):
        known = self.tokens[chunk.number]
        tokens = [*known, *chunk.drafts]
        if chunk.number not in self.admitted:
            self.admitted.append(chunk.number)
        self.n_computed += chunk.stop - chunk.start
        for place in range(chunk.start, chunk.stop):
            self.cells[chunk.table.pages[place // SIZE], place % SIZE] = tokens[place]
            end = place + 1
            if end % SIZE == 0 and end < len(self.prompts[chunk.number]):
                self.pages_computed[tuple(tokens[:end])] += 1
        # the next token is made of what the pages hold: wrong pages give a wrong text
        held = self.cells[chunk.table.pages].ravel().tolist()
        return [following(held[:stop]) for stop in range(chunk.stop - len(chunk.drafts), chunk.stop + 1)]

    def sample(self, number, followings, drafts):
        new = []
        for token, draft in zip(followings, [*drafts, None], strict=True):
            new.append(token)
            said = len(self.tokens[number]) + len(new) - len(self.prompts[number])
            if said == self.limits[number] or token == 0:
                self.tokens[number] += new
                self.done[number] = self.tokens[number][-said:]
                self.scheduler.end(number)
                return
            if token != draft:
                break
        self.tokens[number] += new
        self.scheduler.record(number, new)

    def run(self):
        steps = 0
        while self.scheduler.busy:
            self.step()
            steps += 1
            assert steps < 10_000
        assert self.scheduler.pool.available == self.scheduler.pool.count  # no page leaked
        return steps


def following(tokens):
    return crc32(bytes(tokens)) % 12


def expected(prompt, limit):
    tokens = list(prompt)
    while len(tokens) < len(prompt) + limit:
        tokens.append(following(tokens))
        if tokens[-1] == 0:
            break
    return tokens[len(prompt) :]


prompts = st.one_of(
    st.lists(st.integers(0, 4), min_size=1, max_size=20),
    st.tuples(st.sampled_from([[1] * 9, [2, 3] * 6]), st.lists(st.integers(0, 4), min_size=1, max_size=6)).map(
        lambda parts: parts[0] + parts[1]
    ),
)
events = st.one_of(
    st.tuples(st.just("submit"), prompts, st.integers(1, 15), st.integers(0, 2), st.booleans(), st.integers(1, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 40)),
    st.tuples(st.just("cancel in a step"), st.integers(0, 40)),
    st.tuples(st.just("step")),
    st.tuples(st.just("guess"), st.integers(0, 5)),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(events, max_size=40), st.integers(9, 40), st.integers(5, 30))
def test_any_stream_of_requests_ends_with_the_right_texts(stream, count, budget):
    machine, cancelled = Machine(count, token_budget=budget, patience=3), set()
    for kind, *values in stream:
        if kind == "submit":
            prompt, limit, priority, share, copies = values
            for _ in range(copies):  # equal prompts at once
                machine.submit(len(machine.tokens), prompt, limit, priority=priority, share=share)
        elif kind == "cancel":
            machine.scheduler.end(values[0])
            cancelled.add(values[0])
        elif kind == "guess":
            machine.step(right=values[0])
        else:
            machine.step(values)
            cancelled.update(values)
    machine.run()
    for number, prompt in machine.prompts.items():
        if number in machine.done:
            assert machine.done[number] == expected(prompt, machine.limits[number])
        else:
            assert number in cancelled


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(prompts, st.integers(1, 6)), min_size=1, max_size=12), st.integers(1, 12))
def test_beginnings_in_common_are_computed_once(requests, rows):
    machine = Machine(2000, max_running=rows, token_budget=rows + 6)
    for number, (prompt, limit) in enumerate(requests):
        machine.submit(number, prompt, limit)
    machine.run()
    assert set(machine.pages_computed.values()) <= {1}


def test_candidates_of_one_prompt_compute_it_once():
    prompt = [1, 2, 3, 4, 0, 1, 2, 3, 4, 0]
    machine = Machine(200, max_running=16, token_budget=17)
    for number in range(16):
        machine.submit(number, prompt, 1)
    machine.run()
    assert machine.n_computed == len(prompt)
    assert set(map(tuple, machine.done.values())) == {tuple(expected(prompt, 1))}


def test_nothing_is_shared_where_it_is_not_wanted():
    for options, each in (({"share": False}, {}), ({}, {"share": False})):
        machine = Machine(200, **options)
        for number in range(3):
            machine.submit(number, [1] * 10, 1, **each)
        machine.run()
        assert machine.n_computed == 30


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=15), st.integers(1, 5), st.integers(12, 60))
def test_admission_is_by_priority_then_arrival(priorities, rows, count):
    machine = Machine(count, max_running=rows, token_budget=40, patience=1000)
    for number, priority in enumerate(priorities):
        machine.submit(number, [number % 5] * (3 + number), 5 + number % 7, priority=priority, share=False)
    machine.run()
    assert machine.admitted == sorted(range(len(priorities)), key=lambda number: (priorities[number], number))


@pytest.mark.parametrize("older", [0, 3])
def test_nobody_waits_for_ever_whatever_arrives(older):
    patience = 5
    machine = Machine(16, max_running=2, patience=patience)
    for number in range(older + 1):
        machine.submit(number, [1, 2, 3], 6, priority=9, share=False)
    for number in range(older + 1, 200):
        machine.submit(number, [4, number % 5], 3, priority=0, share=False)
        machine.step()
        if older in machine.admitted:
            break
    assert machine.admitted.index(older) < (older + 1) * patience


def test_a_large_request_is_not_passed_by_small_ones():
    machine = Machine(12, max_running=8)
    machine.submit(0, [1] * 4, 20, share=False)
    machine.submit(1, [2] * 30, 10, share=False)
    for number in range(2, 30):
        machine.submit(number, [3], 2, share=False)
    machine.run()
    assert machine.admitted == list(range(30))


def test_a_full_queue_says_how_long_it_is():
    machine = Machine(max_waiting=3)
    for number in range(3):
        machine.submit(number, [1], 1)
    with pytest.raises(BusyError, match="3 requests wait"):
        machine.submit(3, [1], 1)
    machine.run()
    machine.submit(4, [1], 1)
    machine.run()


@pytest.mark.parametrize("patience", [1, 64])
def test_the_queue_does_not_grow_with_those_that_left(patience):
    machine = Machine(patience=patience)
    for number in range(2000):
        machine.submit(number, [1], 1, priority=number % 3)
        if number % 2:
            machine.scheduler.end(number)
        else:
            machine.step()
    assert len(machine.scheduler._waiting._heap) < 200
    machine.run()


def test_what_can_never_fit_is_refused_with_its_size():
    machine = Machine(5)
    machine.submit(0, [1] * 11, 10)  # the last token is never computed: 20 positions, five pages
    with pytest.raises(InputError, match="6 pages of 4 tokens, the cache has 5") as caught:
        machine.submit(1, [1] * 11, 11)
    assert caught.value.mend == "lower max_tokens to 10, or give the engine cache_tokens=24"
    machine.submit(1, [1] * 20, 1)
    with pytest.raises(InputError, match="6 pages") as caught:
        machine.submit(2, [1] * 21, 1)
    assert "20 tokens or fewer" in caught.value.mend
    machine.run()


def test_prompts_come_in_chunks_beside_those_that_run():
    machine = Machine(60, max_running=2, token_budget=6)
    talkative = next(list(prompt) for prompt in product(range(5), repeat=6) if len(expected(prompt, 9)) == 9)
    machine.submit(0, talkative, 9)
    machine.step()
    machine.submit(1, [2] * 20, 1)
    before = len(machine.tokens[0])
    while 1 not in machine.done:
        machine.step()
    assert len(machine.tokens[0]) == before + 4  # 5, 5, 5 and 5 tokens of the prompt, and one of the other each time


def test_guesses_that_hold_save_steps_and_those_that_do_not_leave_no_page():
    prompt = next(list(prompt) for prompt in product(range(5), repeat=6) if len(expected(prompt, 30)) == 30)
    for right in (0, 7):
        machine = Machine(60, token_budget=40)
        machine.submit(0, prompt, 30)
        steps = 0
        while machine.scheduler.busy:
            machine.step(right=right)
            steps += 1
            if 0 not in machine.done:
                [job] = machine.scheduler._running.values()
                assert len(job.table.pages) == -(-job.table.length // SIZE)
        assert machine.done[0] == expected(prompt, 30)
        assert steps == (30 if right == 0 else 5)
        machine.run()


def test_guesses_stay_within_limit_budget_and_number_of_requests():
    machine = Machine(60, token_budget=11, max_running=5, max_drafting=2)
    for number in range(3):
        machine.submit(number, [number + 1] * 3, 4 + number)
    assert machine.scheduler.draftable() == []
    machine.step()
    assert machine.scheduler.crowded
    assert [most for *_, most in machine.scheduler.draftable()] == [1, 1, 1]  # of 11 tokens 3 are taken, half the rest
    machine.scheduler.end(0)
    assert not machine.scheduler.crowded
    assert [(number, most) for number, _, most in machine.scheduler.draftable()] == [(1, 2), (2, 2)]
    machine.scheduler.end(1)
    machine.step(right=0)
    assert [most for *_, most in machine.scheduler.draftable()] == [6 - len(machine.tokens[2]) + 3 - 1]
    machine.run()


def test_a_short_prompt_does_not_wait_for_a_long_one():
    machine = Machine(400, max_running=4, token_budget=20)
    machine.submit(0, [1] * 900, 1)
    machine.submit(1, [2] * 5, 1)
    machine.submit(2, [3] * 300, 1)
    machine.step()
    assert 1 in machine.done
    before = machine.n_computed
    for _ in range(10):
        machine.step()
    assert machine.n_computed == before + 200
    machine.submit(3, [4] * 3, 1)
    machine.step()
    assert 3 in machine.done
    assert 0 not in machine.done
    machine.run()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_running": 0},
        {"max_waiting": 0},
        {"patience": 0},
        {"max_drafting": -1},
        {"max_running": 8, "token_budget": 8},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(SettingError) as caught:
        SchedulerSettings(**wrong)
    assert caught.value.where in wrong
    assert dataclasses.replace(SchedulerSettings(), share=False).share is False
