"""Orders of pipelines: complete, free of deadlock, within their memory, and with the paper's bubble."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.errors import SettingError
from herd.train.parallel.play import Move, bubble, nominal, played, with_moves
from herd.train.parallel.schedule import Action, Schedule, balanced

SCHEDULES = st.builds(
    Schedule,
    pp=st.integers(1, 9),
    microbatches=st.integers(1, 20),
    virtual=st.integers(1, 4),
    consecutive=st.integers(0, 24),
)
LONG_RUNS = SCHEDULES.filter(lambda one: one.virtual == 1 or min(map(len, one.runs)) >= one.pp)


@given(SCHEDULES)
@settings(deadline=None, max_examples=150)
def test_every_rank_does_each_of_its_actions_once_and_in_an_order_that_ends(schedule: Schedule) -> None:
    for rank in range(schedule.pp):
        actions = schedule.actions(rank)
        wanted = {
            Action(kind, s, m)  # type: ignore[arg-type]
            for kind in ("forward", "backward")
            for s in schedule.stages_of(rank)
            for m in range(schedule.microbatches)
        }
        assert len(actions) == len(wanted)
        assert set(actions) == wanted
    assert len(played(schedule)) == 2 * schedule.stages * schedule.microbatches


@given(SCHEDULES)
@settings(deadline=None, max_examples=100)
def test_transfers_that_block_both_ends_never_wait_for_one_another(schedule: Schedule) -> None:
    """Played with sends that return only when the other rank is at the very receive that belongs to them."""
    for learn in (True, False):
        left = [list(steps) for steps in with_moves(schedule, learn)]
        done: set[Action] = set()
        here: list[set[Action]] = [set() for _ in left]  # what each rank has made or received
        moved = True
        while moved:
            moved = False
            for rank, steps in enumerate(left):
                while steps and isinstance(steps[0], Action):
                    assert all(need in here[rank] for need in schedule.needs(steps[0]))
                    here[rank].add(steps[0])
                    done.add(steps.pop(0))  # type: ignore[arg-type]
                    moved = True
                if steps and isinstance(steps[0], Move) and steps[0].way == "send":
                    ours = steps[0]
                    theirs = left[ours.peer][:1]
                    if theirs == [Move("receive", ours.made, rank)]:
                        here[ours.peer].add(ours.made)
                        steps.pop(0), left[ours.peer].pop(0)
                        moved = True
        assert not any(left)
        assert len(done) == schedule.stages * schedule.microbatches * (2 if learn else 1)


@given(SCHEDULES)
@settings(deadline=None, max_examples=150)
def test_a_rank_holds_what_it_says_and_no_more(schedule: Schedule) -> None:
    for rank in range(schedule.pp):
        held = most = 0
        for action in schedule.actions(rank):
            held += 1 if action.kind == "forward" else -1
            most = max(most, held)
        assert most == schedule.in_flight(rank)
        if schedule.virtual == 1:
            assert most == min(schedule.pp - rank, schedule.microbatches)
        longest = max(map(len, schedule.runs))
        assert most <= (schedule.virtual - 1) * longest + 2 * (schedule.pp - 1 - rank) + 1


@given(SCHEDULES)
@settings(deadline=None, max_examples=150)
def test_runs_cover_the_step_and_are_near_what_was_asked(schedule: Schedule) -> None:
    assert [m for run in schedule.runs for m in run] == list(range(schedule.microbatches))
    wanted, lengths = schedule.consecutive or schedule.pp, [len(run) for run in schedule.runs]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= min(wanted, schedule.pp, schedule.microbatches)
    assert max(lengths) <= max(wanted, 2 * wanted - 1)


@given(LONG_RUNS, st.sampled_from([1.0, 2.0]))
@settings(deadline=None, max_examples=100)
def test_the_bubble_is_the_papers_when_no_run_is_shorter_than_the_pipeline(schedule: Schedule, back: float) -> None:
    timeline = played(schedule, lambda action: 1.0 if action.kind == "forward" else back)
    assert bubble(timeline, schedule.pp) == pytest.approx(schedule.bubble)


def test_the_papers_picture_and_its_numbers() -> None:
    """Figure 6: 8 stages on 4 ranks, 10 micro-batches, N = 5. 405B: 16 ranks of 8 stages, 16 micro-batches."""
    figure = Schedule(pp=4, virtual=2, microbatches=10, consecutive=5)
    assert [(a.stage, a.microbatch) for a in figure.forwards(0)[:11]] == [
        *((0, m) for m in range(5)), *((4, m) for m in range(5)), (0, 5)
    ]  # fmt: skip
    assert figure.stages_of(0) == range(0, 8, 4)
    assert bubble(played(figure), 4) == pytest.approx(3 / 20)
    largest = Schedule(pp=16, virtual=8, microbatches=16)
    assert bubble(played(largest), 16) == pytest.approx(15 / 128)


def test_depth_first_holds_less_and_breadth_first_sends_in_longer_runs() -> None:
    depth, breadth = Schedule(4, 16, 4), Schedule(4, 16, 4, consecutive=16)
    assert [depth.in_flight(rank) for rank in range(4)] == [19, 17, 15, 13]
    assert [breadth.in_flight(rank) for rank in range(4)] == [55, 53, 51, 49]
    assert bubble(played(depth), 4) == pytest.approx(bubble(played(breadth), 4))
    assert len(breadth.runs) == 1


def test_a_transfer_delays_the_next_stage_only() -> None:
    schedule = Schedule(pp=2, microbatches=1)
    ends = {one.action: one.end for one in played(schedule, nominal, lambda action: 0.25)}
    assert ends[Action("forward", 1, 0)] == 2.25
    assert ends[Action("backward", 0, 0)] == 2.25 + 2 + 0.25 + 2


@pytest.mark.parametrize(("pp", "virtual", "microbatches"), [(2, 1, 3), (4, 1, 6), (2, 2, 4), (4, 2, 10), (3, 3, 7)])
def test_torch_finds_the_order_valid_too(pp: int, virtual: int, microbatches: int) -> None:
    """torch's own checker of pipeline orders and its simulator of transfers, as an independent opinion."""
    pytest.importorskip("torch.distributed.pipelining")
    from torch.distributed.pipelining import schedules as theirs

    kinds = {"forward": theirs._ComputationType.FORWARD, "backward": theirs._ComputationType.FULL_BACKWARD}
    schedule = Schedule(pp, microbatches, virtual)
    actions = {
        rank: [theirs._Action(a.stage, kinds[a.kind], a.microbatch) for a in schedule.actions(rank)]
        for rank in range(pp)
    }
    ranks = theirs._validate_schedule(actions, pp, pp * virtual, microbatches)
    assert ranks == {stage: schedule.rank_of(stage) for stage in range(pp * virtual)}
    theirs._add_send_recv(actions, schedule.rank_of, pp * virtual)  # raises where an order cannot be followed


def test_layers_of_the_stages() -> None:
    assert balanced(126, 16, 8) == (0, *[1] * 126, 0)  # 405B
    assert balanced(32, 4) == (7, 9, 9, 7)
    assert balanced(4, 2, 2) == (0, 2, 2, 0)
    assert balanced(5, 2) == (3, 2)
    assert balanced(7, 1) == (7,)
    assert balanced(9, 3, given=(2, 4, 3)) == (2, 4, 3)


@given(st.integers(1, 200), st.integers(1, 16), st.integers(1, 8))
def test_stages_share_all_layers_evenly(n_layers: int, pp: int, virtual: int) -> None:
    if pp * virtual > n_layers + 2:
        with pytest.raises(SettingError, match="cannot fill"):
            balanced(n_layers, pp, virtual)
        return
    layers = balanced(n_layers, pp, virtual)
    slots = [*layers]
    slots[0], slots[-1] = slots[0] + 1, slots[-1] + 1
    assert len(layers) == pp * virtual
    assert sum(layers) == n_layers
    assert max(slots) - min(slots) <= 1 or pp * virtual == 1


def test_bad_orders_and_bad_cuts_are_refused() -> None:
    for wrong in ({"pp": 0}, {"microbatches": 0}, {"virtual": 0}, {"consecutive": -1}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            Schedule(**{"pp": 2, "microbatches": 2} | wrong)
    for layers in ((1, 2), (1, 1, 1), (4, 0, -1, 0)):
        with pytest.raises(SettingError, match="share 3"):
            balanced(3, 4, given=layers)
