"""Each objective against a plain implementation of its formula, and the sums that make any split the same step."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from train_models import VOCABULARY, random_documents, talk, tiny_model, tiny_settings

from herd.errors import InputError
from herd.train.loop import mean_loss
from herd.train.objectives.distillation import Distillation, bucketed_kl
from herd.train.objectives.dpo import DirectPreference, reference_logprobs
from herd.train.objectives.language_modelling import LanguageModelling, SupervisedFinetuning
from herd.train.objectives.reward import RewardModel, RewardObjective, score
from herd.train.pairs import PairBatches, Preference, pair_batch
from herd.train.sources import Batches, PackedRows, TokenStream
from herd.train.teacher import TaughtRows, TeacherTopK, store_teacher_topk, topk_answers


def all_logits(model, ids):
    """Logits of one sequence alone, [T, V]."""
    return model.logits(model(torch.tensor([ids])))[0]


def pairs_of(count):
    made = []
    for n in range(count):
        prompt = talk(4 + n % 3, 1, n)
        head = prompt.ids[: 4 + n % 3]
        sides = [talk(len(head), 3 + (n + side) % 5, 100 * n + side) for side in (1, 2)]
        for side in sides:
            side.ids[: len(head)] = head
        made.append(Preference(sides[0], sides[1], len(head)))
    return made


def test_language_modelling_equals_naive_cross_entropy_of_each_document_alone():
    model, store = tiny_model(), random_documents(12, longest=10)
    stream = TokenStream(store, int(store.offsets[-1]), 0)
    batch = Batches(stream, tiny_settings(seq_len=stream.n_tokens, batch_tokens=stream.n_tokens)).batch(0)[0]
    terms = LanguageModelling().terms(model, batch)
    naive = torch.zeros(())
    for document in store.documents:
        ids = document.astype(int).tolist()
        if len(ids) > 1:
            naive = naive + F.cross_entropy(all_logits(model, ids)[:-1], torch.tensor(ids[1:]), reduction="sum")
    assert float(terms.count) == sum(len(d) - 1 for d in store.documents)
    torch.testing.assert_close(terms.total, naive, rtol=1e-5, atol=1e-4)


def test_sft_equals_naive_cross_entropy_of_the_trained_tokens():
    model, talks = tiny_model(), [talk(3 + n, 4, n) for n in range(5)]
    rows = PackedRows(talks, 32, seed=0)
    batches = Batches(rows, tiny_settings(seq_len=32, batch_tokens=32 * rows.n_rows)).batch(0)
    terms = SupervisedFinetuning().terms(model, batches[0])
    naive, count = torch.zeros(()), 0
    for one in talks:
        logprobs = all_logits(model, one.ids).log_softmax(-1)
        for t in range(1, len(one.ids)):
            if one.trained[t]:
                naive, count = naive - logprobs[t - 1, one.ids[t]], count + 1
    assert float(terms.count) == count
    torch.testing.assert_close(terms.total, naive, rtol=1e-5, atol=1e-4)


def naive_dpo(policy, reference, pair, beta, coefficient):
    def content(model, side):
        logprobs = all_logits(model, side.ids).log_softmax(-1)
        scored = [t for t in range(pair.prompt_tokens, len(side.ids)) if side.kinds[t] == "content"]
        return sum(logprobs[t - 1, side.ids[t]] for t in scored)

    with torch.no_grad():
        base = content(reference, pair.chosen) - content(reference, pair.rejected)
    margin = beta * (content(policy, pair.chosen) - content(policy, pair.rejected) - base)
    ids, start = pair.chosen.ids, pair.prompt_tokens
    nll = F.cross_entropy(all_logits(policy, ids)[start - 1 : -1], torch.tensor(ids[start:]))
    return -torch.log(torch.sigmoid(margin)) + coefficient * nll


def test_dpo_equals_its_formula_in_value_and_gradient():
    policy, reference, pairs = tiny_model(1), tiny_model(2), pairs_of(6)
    known = reference_logprobs(reference, pairs, microbatch_tokens=64)
    terms = DirectPreference().terms(policy, pair_batch(pairs, known))
    terms.total.backward()
    fast = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    naive = sum(naive_dpo(policy, reference, pair, 0.1, 0.2) for pair in pairs)
    naive.backward()
    torch.testing.assert_close(terms.total, naive, rtol=1e-5, atol=1e-5)
    for name, param in policy.named_parameters():
        torch.testing.assert_close(fast[name], param.grad, rtol=1e-4, atol=1e-5)


def test_dpo_begins_at_log_two_and_masks_stop_tokens_out_of_the_preference():
    model, pairs = tiny_model(), pairs_of(4)
    known = reference_logprobs(model, pairs, 1000)
    terms = DirectPreference(nll_coefficient=0.0).terms(model, pair_batch(pairs, known))
    assert float(terms.total.detach()) / 4 == pytest.approx(0.6931472, abs=1e-5)
    batch = pair_batch(pairs)
    stops = batch.extras["stops_BT"]
    assert torch.equal(stops.sum(1), torch.ones(8))
    assert (batch.targets_BT[stops > 0] == VOCABULARY - 1).all()
    assert float((batch.weights_BT * stops).sum()) == 0


def test_reference_logprobs_do_not_depend_on_the_grouping():
    model, pairs = tiny_model(), pairs_of(9)
    torch.testing.assert_close(reference_logprobs(model, pairs, 1), reference_logprobs(model, pairs, 10_000))


def test_a_pair_must_share_its_prompt_and_have_two_answers():
    first, second = talk(3, 2, 0), talk(3, 2, 1)
    with pytest.raises(InputError, match="do not share"):
        Preference(first, second, 3)
    with pytest.raises(InputError, match="empty"):
        Preference(talk(3, 0, 0), talk(3, 0, 0), 3)
    with pytest.raises(InputError, match="log-probabilities"):
        DirectPreference().terms(tiny_model(), pair_batch(pairs_of(1)))


def reward_model():
    model = RewardModel(tiny_model())
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    return model


def test_reward_loss_equals_its_formula_and_scores_equal_lone_forwards():
    model, pairs = reward_model(), pairs_of(5)
    sequences = [side.ids for pair in pairs for side in pair.sides]
    rewards = torch.stack([model(torch.tensor([ids]), torch.tensor([len(ids) - 1]))[0] for ids in sequences])
    naive = -torch.sigmoid(rewards[0::2] - rewards[1::2]).log().sum()
    terms = RewardObjective().terms(model, pair_batch(pairs))
    torch.testing.assert_close(terms.total, naive, rtol=1e-5, atol=1e-5)
    assert float(terms.metrics["accuracy"]) == float((rewards[0::2] > rewards[1::2]).sum())
    assert score(model, sequences, 40) == pytest.approx(rewards.tolist(), abs=1e-5)


def test_a_fresh_reward_head_knows_nothing():
    terms = RewardObjective().terms(RewardModel(tiny_model()), pair_batch(pairs_of(3)))
    assert float(terms.total.detach()) == pytest.approx(3 * 0.6931472, abs=1e-5)


def taught_rows(tmp_path, teacher, k, temperature=1.0):
    rows = PackedRows([talk(3 + n % 4, 5, n) for n in range(8)], 24, seed=0)
    store_teacher_topk(
        tmp_path / "teacher", teacher, rows, rows.n_rows, k, tokenizer_fingerprint="a", temperature=temperature
    )
    return rows, TaughtRows(rows, TeacherTopK.open(tmp_path / "teacher", "a"))


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_distillation_equals_the_full_kl_when_k_is_the_vocabulary(tmp_path, tau):
    teacher, student = tiny_model(1), tiny_model(2)
    rows, taught = taught_rows(tmp_path, teacher, VOCABULARY, tau)
    settings = tiny_settings(seq_len=24, batch_tokens=24 * rows.n_rows)
    batch = Batches(taught, settings).batch(0)[0]
    terms = Distillation(mix=0.7).terms(student, batch)
    plain = {"positions_BT": batch.positions_BT, "document_ids_BT": batch.document_ids_BT}
    with torch.no_grad():
        p = (teacher.logits(teacher(batch.tokens_BT, **plain)) / tau).log_softmax(-1)
    logits = student.logits(student(batch.tokens_BT, **plain))
    q = (logits / tau).log_softmax(-1)
    kl = ((p.exp() * (p - q)).sum(-1) * batch.weights_BT).sum()
    ce_N = F.cross_entropy(logits.flatten(0, 1), batch.targets_BT.flatten(), reduction="none")
    naive = 0.7 * tau**2 * kl + 0.3 * (ce_N * batch.weights_BT.flatten()).sum()
    torch.testing.assert_close(terms.total, naive, rtol=2e-3, atol=1e-3)  # the store keeps float16


def test_the_bucketed_kl_is_never_above_the_full_one_and_grows_with_k():
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(20, 30, generator=generator).log_softmax(-1)
    q = torch.randn(20, 30, generator=generator).log_softmax(-1)
    full = (p.exp() * (p - q)).sum(-1)
    before = torch.zeros(20)
    for k in (1, 5, 29, 30):
        best, ids = p.topk(k, -1)
        kl = bucketed_kl(best, 1 - best.exp().sum(-1), q.gather(1, ids))
        assert (kl >= before - 1e-5).all()
        before = kl
    torch.testing.assert_close(before, full, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_distillation_vanishes_at_the_teacher():
    model = tiny_model(1)
    rows = PackedRows([talk(3, 5, n) for n in range(3)], 24, seed=0)
    batch = Batches(rows, tiny_settings(seq_len=24, batch_tokens=24 * rows.n_rows)).batch(0)[0]
    answers = topk_answers(model, batch, 7, 1.0)
    extras = {
        "teacher_ids_BTk": answers["ids"],
        "teacher_logprobs_BTk": answers["logprobs"],
        "teacher_rest_BT": answers["rest"],
        "teacher_temperature_host": torch.ones(len(batch.tokens_BT)),
    }
    taught = type(batch)(
        batch.tokens_BT, batch.targets_BT, batch.weights_BT, batch.document_ids_BT, batch.positions_BT, extras
    )
    terms = Distillation(mix=1.0).terms(model, taught)
    terms.total.backward()
    assert float(terms.total.detach()) == pytest.approx(0.0, abs=1e-4)
    assert max(float(p.grad.abs().max()) for p in model.parameters()) < 1e-4


def objectives(tmp_path):
    """(model, objective, settings -> source) of every objective, on batches of 8 rows."""
    stream = TokenStream(random_documents(30), 16, 0)
    pairs = pairs_of(8)
    known = reference_logprobs(tiny_model(3), pairs, 1000)
    rows, taught = taught_rows(tmp_path, tiny_model(3), 5)
    return {
        "language_modelling": (tiny_model(), LanguageModelling(), 16, lambda s: Batches(stream, s)),
        "sft": (tiny_model(), SupervisedFinetuning(), 24, lambda s: Batches(rows, s)),
        "distillation": (tiny_model(), Distillation(), 24, lambda s: Batches(taught, s)),
        "dpo": (tiny_model(), DirectPreference(), 24, lambda s: PairBatches(pairs, s, known)),
        "reward": (reward_model(), RewardObjective(), 24, lambda s: PairBatches(pairs, s)),
    }


@pytest.mark.parametrize("name", ["language_modelling", "sft", "distillation", "dpo", "reward"])
def test_any_split_into_microbatches_gives_the_same_gradient(tmp_path, name):
    model, objective, seq_len, source = objectives(tmp_path)[name]
    found = []
    for rows in (8, 1, 3):
        settings = tiny_settings(seq_len=seq_len, batch_tokens=8 * seq_len, microbatch_tokens=rows * seq_len)
        model.zero_grad()
        total = count = 0.0
        batches = source(settings).batch(0)
        for batch in batches:
            terms = objective.terms(model, batch)
            terms.total.backward()
            total, count = total + float(terms.total.detach()), count + float(terms.count)
        found.append((len(batches), total, [p.grad / count for p in model.parameters() if p.grad is not None]))
    assert len({n for n, _, _ in found}) == 3
    for _, total, grads in found[1:]:
        assert total == pytest.approx(found[0][1], rel=1e-5)
        for one, other in zip(grads, found[0][2], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_validation_loss_is_a_mean_over_tokens_not_over_batches():
    model = tiny_model()
    stream = TokenStream(random_documents(30), 16, 0)
    uneven = Batches(stream, tiny_settings(microbatch_tokens=48)).batch(0)
    whole = Batches(stream, tiny_settings()).batch(0)
    assert mean_loss(model, LanguageModelling(), uneven) == pytest.approx(
        mean_loss(model, LanguageModelling(), whole), rel=1e-6
    )
