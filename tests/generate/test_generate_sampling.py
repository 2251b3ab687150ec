"""Sampling against naive implementations, and its randomness against statistics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.errors import ArtifactError
from herd.generate.sampling import Chances, nucleus, sample, uniforms


def draw(logits_V, temperature, top_p, n, first_seed=0):
    """n tokens from the same logits, one row each."""
    rows = torch.as_tensor(logits_V, dtype=torch.float32).expand(n, -1).contiguous()
    chance = uniforms(np.arange(first_seed, first_seed + n, dtype=np.uint64), np.zeros(n, dtype=np.int64))
    settings = (np.full(n, x, dtype=np.float32) for x in (temperature, top_p))
    tokens, logprobs = sample(rows, Chances(*settings, chance))
    return tokens.numpy(), logprobs.numpy()


def naive_nucleus(logits_V, temperature, top_p):
    """Probabilities after the top-p rule, one token at a time, in float64."""
    scaled = np.asarray(logits_V, dtype=np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    kept, before = np.zeros_like(p), 0.0
    for token in np.argsort(-p, kind="stable"):
        if before <= top_p:
            kept[token] = p[token]
        before += p[token]
    return kept / kept.sum()


def chi_square(tokens, probabilities):
    """Pearson's statistic over the tokens expected at least five times, and its degrees of freedom."""
    counts = np.bincount(tokens, minlength=len(probabilities))
    expected = probabilities * len(tokens)
    common = expected >= 5
    seen, wanted = counts[common], expected[common]
    rare_seen, rare_wanted = counts[~common].sum(), expected[~common].sum()
    if rare_wanted >= 5:
        seen, wanted = np.append(seen, rare_seen), np.append(wanted, rare_wanted)
    return ((seen - wanted) ** 2 / wanted).sum(), len(seen) - 1


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("size", [12, 300])
def test_frequencies_are_those_of_the_distribution(temperature, top_p, size):
    logits = np.random.default_rng(7).normal(0, 1.5, size)
    tokens, _ = draw(logits, temperature, top_p, 20_000)
    expected = naive_nucleus(logits, temperature, top_p)
    assert (expected[tokens] > 0).all()
    statistic, freedom = chi_square(tokens, expected)
    # mean `freedom`, variance 2 * freedom; five standard deviations, and the seeds are fixed
    assert statistic < freedom + 5 * np.sqrt(2 * max(freedom, 1))


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 10_000),
    st.integers(1, 200),
    st.floats(0.05, 0.99),
    st.floats(0.2, 3.0),
    st.sampled_from([0.1, 1, 5]),
)
def test_nucleus_is_the_naive_one(seed, size, top_p, temperature, spread):
    logits = np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)
    allowed = naive_nucleus(logits, temperature, top_p)
    slack = naive_nucleus(logits, temperature, min(top_p + 1e-5, 1))  # float32 sums may differ at the very border
    tokens, _ = draw(logits, temperature, top_p, 300, seed)
    assert ((allowed[tokens] > 0) | (slack[tokens] > 0)).all()
    likely = allowed > 0.05
    assert np.isin(np.flatnonzero(likely), tokens).all()  # 300 draws miss a token of 5 % once in five million


def test_wide_nucleus_goes_beyond_the_likeliest():
    tokens, _ = draw(np.zeros(1000), 1.0, 0.5, 20_000)
    assert 450 < len(np.unique(tokens)) <= 501  # the rule keeps the token that crosses the border


def test_equally_likely_tokens_at_the_border_are_kept_by_number():
    weights = torch.tensor([[1.0, 4.0, 2.0, 1.0, 1.0, 1.0]])
    for top_p, kept in ((0.3, 1), (0.5, 2), (0.65, 3), (0.75, 4), (0.85, 5), (0.95, 6)):
        left = nucleus(weights, torch.tensor([[top_p]]))[0]
        assert left[1] == 4
        assert int((left > 0).sum()) == kept
        assert left.tolist() == [
            w if keep else 0 for w, keep in zip(weights[0].tolist(), (left > 0).tolist(), strict=True)
        ]
        ones = [i for i in (0, 3, 4, 5) if left[i] > 0]
        assert ones == [0, 3, 4, 5][: len(ones)]


def test_a_nucleus_of_nearly_everything_changes_no_draw():
    logits = np.random.default_rng(3).normal(0, 1, 500)
    assert (draw(logits, 1.0, 1.0, 2000)[0] == draw(logits, 1.0, 1 - 1e-6, 2000)[0]).all()


@given(st.integers(0, 1000))
def test_logprobs_are_of_the_untempered_model(seed):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 4, 50)).float()
    for temperature, top_p in ((0.0, 1.0), (0.5, 0.8), (2.0, 1.0)):
        tokens, logprobs = draw(logits, temperature, top_p, 5)
        expected = torch.log_softmax(logits.double(), 0)[tokens].numpy()
        np.testing.assert_allclose(logprobs, expected, rtol=1e-5, atol=1e-6)


def test_temperature_zero_takes_the_likeliest():
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(1))
    zeros, ones = np.zeros(50, np.float32), np.ones(50, np.float32)
    tokens, _ = sample(logits, Chances(zeros, ones, np.full(50, 0.99, np.float32)))
    assert torch.equal(tokens, logits.argmax(1))


def test_rows_keep_their_own_settings():
    logits = torch.randn(4, 200, generator=torch.Generator().manual_seed(2))
    temperature = np.array([0.0, 1.0, 0.7, 2.0], np.float32)
    top_p = np.array([0.5, 1.0, 0.9, 0.3], np.float32)
    for step in range(60):
        chance = uniforms(np.arange(4, dtype=np.uint64), np.full(4, step))
        together, logprobs = sample(logits, Chances(temperature, top_p, chance))
        for row in range(4):
            one = slice(row, row + 1)
            alone, logprob = sample(logits[one], Chances(temperature[one], top_p[one], chance[one]))
            assert together[row] == alone[0]
            torch.testing.assert_close(logprobs[one], logprob)


def test_impossible_tokens_are_never_drawn():
    logits = torch.tensor([[0.0, -float("inf"), 1.0, -float("inf")]])
    one = np.ones(1, np.float32)
    for chance in (0.0, 0.25, 0.5, 0.75, 1 - 2.0**-24):
        for top_p in (1.0, 0.999):
            tokens, _ = sample(logits, Chances(one, np.full(1, top_p, np.float32), np.full(1, chance, np.float32)))
            assert tokens[0] in (0, 2)


def test_uniforms_are_uniform_and_independent():
    seeds = np.repeat(np.arange(300, dtype=np.uint64), 300)
    steps = np.tile(np.arange(300), 300)
    values = uniforms(seeds, steps)
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, bins=100, range=(0, 1))[0]
    assert ((counts - 900) ** 2 / 900).sum() < 99 + 5 * np.sqrt(2 * 99)
    table = values.reshape(300, 300)
    for near in (table[1:] * table[:-1], table[:, 1:] * table[:, :-1]):  # neighbouring seeds, neighbouring steps
        assert abs(near.mean() - 0.25) < 5 * np.sqrt(7 / 144 / near.size)
    assert len(np.unique(values)) > 0.99 * values.size


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_diverged_model_is_named(bad, temperature):
    logits = np.zeros(8)
    logits[3] = bad
    with pytest.raises(ArtifactError, match="not finite"):
        draw(logits, temperature, 1.0, 4)
