"""The comparison of FP8 with BF16 on a text: against a plain computation, through a kill, and its worst places."""

import math

import pytest
import torch
from torch.nn import functional as F

from herd.errors import InputError
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.quantize import quality, reading
from herd.quantize.fp8 import quantize_model
from herd.quantize.quality import differences, worst
from herd.quantize.reading import Passage, grouped, read_through
from herd.quantize.settings import POLICIES

CONFIG = LlamaConfig(61, 32, 4, 4, 2, 48)


def wide():
    model = Llama(CONFIG)
    init_weights(model, 0, 0.15)
    return model.eval()


def narrow():
    model = wide()
    quantize_model(model, POLICIES["all"])
    return model


def drawn(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(61, (length,), generator=generator).tolist()) for length in lengths]


PASSAGES = [
    *(Passage(ids) for ids in drawn(30, 7, 55)),
    Passage(drawn(12, seed=1)[0], (False,) * 5 + (True,) * 7),
    Passage((3,)),  # nothing to predict
]


@pytest.fixture
def seen(tmp_path):
    return differences(wide, narrow, grouped(PASSAGES, row=64), tmp_path)


def plainly():
    """Every passage alone, both models at once, torch's own divergence."""
    kl, own, tops = [], [], []
    with torch.no_grad():
        for passage in PASSAGES[:-1]:
            ids = torch.tensor(passage.ids)
            both = [model.logits(model(ids[None]))[0].double().log_softmax(-1) for model in (wide(), narrow())]
            for place in passage.places:
                p, q = (logprobs[place - 1] for logprobs in both)
                kl.append(float(F.kl_div(q, p, log_target=True, reduction="sum")))
                own.append([float(p[ids[place]]), float(q[ids[place]])])
                tops.append([int(p.argmax()), int(q.argmax())])
    return torch.tensor(kl), torch.tensor(own), torch.tensor(tops)


def test_it_is_what_a_plain_computation_finds(seen):
    kl, own, tops = plainly()
    assert len(kl) == 29 + 6 + 54 + 7
    # a rounding upstream can cross to the next e4m3 value: sums of passages together run in another order
    close = (seen.kl_C - kl).abs() < 1e-4 * kl.clamp(min=1e-6)
    assert close.float().mean() > 0.5
    assert float(seen.kl_C.mean()) == pytest.approx(float(kl.mean()), rel=0.1)
    torch.testing.assert_close(seen.own_C2[:, 0].float(), own[:, 0], rtol=1e-4, atol=1e-4)
    assert torch.equal(seen.chosen_C2[:, 0], tops[:, 0])
    figures = seen.figures()
    assert figures["tokens"] == len(kl)
    assert figures["kl"]["max"] == float(seen.kl_C.max())
    assert figures["perplexity"]["bf16"] == pytest.approx(math.exp(-own[:, 0].mean()), rel=1e-5)
    assert figures["top1_agreement"] == pytest.approx(
        float((seen.chosen_C2[:, 0] == seen.chosen_C2[:, 1]).double().mean())
    )
    steps = seen.divergences()
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (float(seen.kl_C.min()), float(seen.kl_C.max()))


def test_a_model_differs_from_itself_nowhere(tmp_path):
    same = differences(wide, wide, grouped(PASSAGES), tmp_path)
    assert float(same.kl_C.max()) == 0.0
    assert same.figures()["top1_agreement"] == 1.0


def test_few_logits_at_a_time_give_the_same(seen, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "_VALUES", 61 * 5)
    again = differences(wide, narrow, grouped(PASSAGES, row=64), tmp_path / "again")
    torch.testing.assert_close(again.kl_C, seen.kl_C, rtol=1e-5, atol=1e-9)


def test_no_passage_sees_another(tmp_path):
    together, alone = (differences(wide, wide, grouped(PASSAGES, row), tmp_path / str(row)) for row in (1024, 1))
    torch.testing.assert_close(together.own_C2, alone.own_C2, rtol=1e-4, atol=1e-5)


def test_the_worst_places_and_what_stood_before(seen):
    groups = grouped(PASSAGES, row=64)
    found = worst(seen, groups, lambda ids: " ".join(map(str, ids)), count=5)
    assert [one.kl for one in found] == seen.kl_C.sort(descending=True).values[:5].tolist()
    every = [(group.passages[number], place) for group in groups for number, place in group.targets]
    passage, place = every[int(seen.kl_C.argmax())]
    assert found[0].expected == str(passage.ids[place])
    assert found[0].before == " ".join(map(str, passage.ids[max(0, place - 24) : place]))
    assert found[0].bf16 == pytest.approx(float(seen.own_C2[int(seen.kl_C.argmax()), 0].exp()))
    assert len(worst(seen, groups, str, count=10**6)) == len(every)


def test_a_killed_run_reads_nothing_twice(tmp_path, monkeypatch, seen):
    groups, read, states = grouped(PASSAGES, row=64), [], reading.Group.states

    def counted(group, model):
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(group)
        return states(group, model)

    monkeypatch.setattr(reading.Group, "states", counted)
    with pytest.raises(KeyboardInterrupt):
        differences(wide, narrow, groups, tmp_path / "s")
    first = read.copy()
    read.clear()
    again = differences(wide, narrow, groups, tmp_path / "s")
    assert len(first) + len(read) == 2 * len(groups)
    assert torch.equal(again.kl_C, seen.kl_C)


def test_what_was_read_lets_go_of_the_layers(tmp_path):
    model = wide()
    read_through(model, grouped(PASSAGES), tmp_path)
    assert len(model.model.layers) == 0


def test_a_sick_model_and_an_empty_text_are_refused(tmp_path):
    def sick():
        model = narrow()
        model.model.norm.weight.data[3] = torch.nan
        return model

    with pytest.raises(InputError, match="the fp8 model predicts NaN"):
        differences(wide, sick, grouped(PASSAGES), tmp_path)
    with pytest.raises(InputError, match="no token to predict"):
        grouped([Passage((1,)), Passage((1, 2), (True, False))])
