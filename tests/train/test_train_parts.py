"""Parts of a step: what data-parallel ranks read is together the step, in forwards of the same number and shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_models import random_documents, talk, tiny_model, tiny_settings

from herd.errors import SettingError
from herd.train.batch import WHOLE, Batch, BatchSource, Part
from herd.train.mixture import Mixture
from herd.train.objectives.distillation import Distillation
from herd.train.objectives.dpo import DirectPreference
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.objectives.reward import RewardModel, RewardObjective
from herd.train.pairs import PairBatches, Preference
from herd.train.sources import Batches, FixedBatches, PackedRows, Phases, Shuffled, TokenStream, row_of
from herd.train.teacher import TaughtRows, TeacherTopK, crc_of

LENGTH = 24
KINDS = ("stream", "mixture", "packed", "taught", "pairs", "dpo", "phases", "fixed", "fixed pairs")


def pairs() -> list[Preference]:
    def two(n: int) -> Preference:
        chosen, rejected = talk(4, 3 + n % 7, n), talk(4, 2 + n % 5, n + 100)
        rejected.ids[:4] = chosen.ids[:4]
        return Preference(chosen, rejected, 4)

    return [two(n) for n in range(19)]


@cache
def _taught() -> TaughtRows:
    rows = PackedRows([talk(3, 2 + n % 5, n) for n in range(40)], LENGTH, seed=0)
    rng, shape = np.random.default_rng(0), (rows.n_rows, LENGTH, 3)
    logprobs = np.log(rng.dirichlet(np.ones(4), shape[:2])).astype(np.float32)
    crc_R = np.asarray([crc_of(rows.at(n)) for n in range(rows.n_rows)], np.uint32)
    ids_RTk = np.argsort(rng.random((*shape[:2], 50)))[..., :3]
    return TaughtRows(rows, TeacherTopK(1.0, 3, ids_RTk, logprobs[..., :3], np.exp(logprobs[..., 3]), crc_R, "memory"))


def source(kind: str, rows: int, micro: int) -> BatchSource:
    settings = tiny_settings(seq_len=LENGTH, batch_tokens=LENGTH * rows, microbatch_tokens=LENGTH * micro)
    stream = TokenStream(random_documents(30), LENGTH, 1)
    if kind == "mixture":
        other = TokenStream(random_documents(12, seed=4), LENGTH, 2)
        return Batches(Mixture([Shuffled(stream, 3, block=7), other], [2, 1], period=10), settings)
    if kind == "packed":
        return Batches(_taught().rows, settings)
    if kind == "taught":
        return Batches(_taught(), settings)
    if kind in ("pairs", "dpo"):
        known = torch.arange(38.0).view(-1, 2) if kind == "dpo" else None
        return PairBatches(pairs(), settings, known)
    if kind == "phases":
        return Phases([(0, source("stream", rows, micro)), (2, source("taught", rows, 1))])
    if kind.startswith("fixed"):
        whole = source("dpo" if kind == "fixed pairs" else "taught", rows, micro)
        return FixedBatches([whole.batch(step) for step in range(2)])
    return Batches(stream, settings)


def things(batch: Batch) -> Iterator[tuple[object, ...]]:
    """Each row, or pair of rows, that counts, in values that do not depend on the batch it stands in."""
    paired = "pair_weights_P" in batch.extras
    for row in range(len(batch.tokens_BT)):
        if not (batch.extras["pair_weights_P"][row // 2] if paired else batch.weights_BT[row].any()):
            continue
        cut = int(batch.extras["last_B"][row]) + 1 if paired else LENGTH
        documents = None if batch.document_ids_BT is None else batch.document_ids_BT[row]
        yield (
            *(t[row, :cut].tolist().__str__() for t in (batch.tokens_BT, batch.weights_BT, batch.positions_BT)),
            str([0] * cut if documents is None else documents[:cut].tolist()),
            *(
                str((tensor[row, :cut] if name.endswith("_BT") else tensor[row]).tolist())
                for name, tensor in sorted(batch.extras.items())
                if name not in ("answer_N", "pair_weights_P")
            ),
        )


def together(kind: str, batches: list[Batch]) -> Counter[tuple[object, ...]]:
    if "pairs" in kind or kind == "dpo":
        found = [list(things(batch)) for batch in batches]
        return Counter((*rows[at], *rows[at + 1]) for rows in found for at in range(0, len(rows), 2))
    return Counter(thing for batch in batches for thing in things(batch))


@given(st.sampled_from(KINDS), st.integers(1, 9), st.integers(1, 5), st.integers(1, 7), st.integers(0, 4))
def test_parts_are_together_the_step_in_forwards_of_one_shape(kind, rows, micro, count, step):
    batches = source(kind, rows, micro)
    parts = [batches.batch(step, Part(index, count)) for index in range(count)]
    shapes = [[tuple(batch.tokens_BT.shape) for batch in part] for part in parts]
    assert all(shape == shapes[0] for shape in shapes)
    assert sum(len(part) for part in parts) > 0
    whole = together(kind, batches.batch(step))
    assert sum((together(kind, part) for part in parts), Counter()) == whole
    assert whole == together(kind, batches.batch(step, WHOLE))


@given(st.integers(1, 30), st.integers(1, 40))
def test_parts_of_places_are_consecutive_and_differ_by_one_at_most(count, n):
    parts = [Part(index, count) for index in range(count)]
    assert [place for part in parts for place in part.of(n)] == list(range(n))
    assert all(0 <= part.each(n) - len(part.of(n)) <= 1 for part in parts)


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_a_part_that_there_is_not_is_refused(index, count):
    with pytest.raises(SettingError, match="no part"):
        Part(index, count)


def test_a_part_reads_no_row_of_another():
    class Watched:
        def __init__(self) -> None:
            self.rows, self.asked = TokenStream(random_documents(30), LENGTH, 1), []

        def index(self, number: int) -> int:
            return number

        def at(self, index: int):
            self.asked.append(index)
            return row_of(self.rows, index)

    rows = Watched()
    settings = tiny_settings(seq_len=LENGTH, batch_tokens=LENGTH * 7)
    for index, mine in enumerate([[21, 22], [23, 24], [25, 26, 27]]):
        rows.asked.clear()
        Batches(rows, settings).batch(3, Part(index, 3))
        assert rows.asked == mine


@pytest.mark.parametrize("stop", [2, 3])
def test_two_ranks_stop_and_four_go_on_with_the_same_samples(stop):
    batches = source("mixture", 6, 2)
    seen = Counter[tuple[object, ...]]()
    for step in range(5):
        ranks = 2 if step < stop else 4
        for index in range(ranks):
            seen += together("mixture", batches.batch(step, Part(index, ranks)))
    assert seen == sum((together("mixture", batches.batch(step)) for step in range(5)), Counter())


@pytest.mark.parametrize("kind", ["stream", "taught", "dpo", "pairs"])
def test_terms_of_parts_add_up_to_those_of_the_step(kind):
    """Five rows or two pairs over three parts: some have rows of weight 0, some nothing else."""
    tiny = tiny_model()
    objective, model = {
        "stream": (LanguageModelling(), tiny),
        "taught": (Distillation(), tiny),
        "dpo": (DirectPreference(), tiny),
        "pairs": (RewardObjective(), RewardModel(tiny)),
    }[kind]
    if kind == "pairs":
        torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(1))
    batches = source(kind, 5, 1)

    def summed(parts: list[Part]) -> tuple[list[float], list[torch.Tensor]]:
        model.zero_grad()
        terms = [objective.terms(model, batch) for part in parts for batch in batches.batch(0, part)]
        for term in terms:
            term.total.backward()
        values = [[float(v) for v in (term.total.detach(), term.count, *term.metrics.values())] for term in terms]
        return [sum(column) for column in zip(*values, strict=True)], [
            param.grad.clone() for param in model.parameters() if param.grad is not None
        ]

    (values, grads), (again, others) = summed([WHOLE]), summed([Part(index, 3) for index in range(3)])
    assert again == pytest.approx(values, rel=1e-5)
    for grad, other in zip(grads, others, strict=True):
        assert torch.allclose(grad, other, rtol=1e-4, atol=1e-5)
