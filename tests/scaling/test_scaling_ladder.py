"""The ladder keeps the flagship's proportions, spends its budgets, and is refused when the fits would refuse it."""

from __future__ import annotations

import math

import pytest

from herd.config import from_plain, to_plain
from herd.errors import SettingError
from herd.llama.config import LlamaConfig, llama31_405b
from herd.scaling.ladder import body_parameters, ladder, shape_near
from herd.scaling.records import budgets
from herd.scaling.settings import FitSettings, LadderSettings

FLAGSHIP = LlamaConfig(4096, 256, 8, 8, 4, 704, rope_scaling=None, max_seq_len=1024, tie_embeddings=True)
NANO = LadderSettings(FLAGSHIP, 4_000_000, 8192, 3e-3, 256, budgets=(1 / 32, 1 / 16, 1 / 8), min_steps=20)


def test_plans_spend_their_budgets_in_whole_steps() -> None:
    plans = ladder(NANO)
    assert len(plans) == 9
    assert len({plan.name for plan in plans}) == 9
    for plan in plans:
        assert plan.tokens == plan.steps * plan.batch_tokens
        assert plan.batch_tokens % plan.seq_len == 0
        assert plan.flops == pytest.approx(plan.budget, rel=0.03)
        assert plan.flops == plan.config.flops_per_token(256) * plan.tokens
        assert plan.warmup_steps < plan.steps


def test_budgets_are_shares_of_the_flagship_and_sizes_grow_with_them() -> None:
    plans = ladder(NANO)
    flagship = FLAGSHIP.flops_per_token(256) * 4_000_000
    assert sorted({plan.budget / flagship for plan in plans}) == pytest.approx([1 / 32, 1 / 16, 1 / 8])
    groups = budgets([plan.record(3.0) for plan in plans])
    assert [len(group) for group in groups.values()] == [3, 3, 3]
    middles = [sorted(run.n_params_body for run in group)[1] for group in groups.values()]
    assert middles == sorted(middles)
    for group in groups.values():
        sizes = [run.n_params_body for run in group]
        assert max(sizes) / min(sizes) > 4


def test_one_batch_a_budget_and_smaller_models_learn_faster() -> None:
    plans = ladder(NANO)
    for budget in {plan.budget for plan in plans}:
        assert len({plan.batch_tokens for plan in plans if plan.budget == budget}) == 1
    by_size = sorted(plans, key=lambda plan: plan.config.parameters())
    rates = [plan.peak_lr for plan in by_size]
    assert rates == sorted(rates, reverse=True)
    # The paper's own ends: 2e-4 at 16B from 4e-4 at 40M.
    assert 4e-4 * (16e9 / 40e6) ** NANO.lr_exponent == pytest.approx(2e-4, rel=0.01)
    assert 250e3 * (1e22 / 6e18) ** NANO.batch_exponent == pytest.approx(4e6, rel=0.01)


def test_shapes_keep_the_proportions_of_the_flagship() -> None:
    for plan in ladder(NANO):
        config = plan.config
        assert config.head_dim == FLAGSHIP.head_dim
        assert config.ffn_dim / config.dim == pytest.approx(FLAGSHIP.ffn_dim / FLAGSHIP.dim, rel=0.1)
        assert abs(math.log(config.dim / config.n_layers / 32)) < math.log(1.8)
        assert config.n_heads % config.n_kv_heads == 0
        assert config.tie_embeddings
        assert config.vocab_size == 4096


def test_the_shape_nearest_to_the_flagships_own_size_is_the_flagship() -> None:
    for config in (FLAGSHIP, llama31_405b()):
        assert shape_near(config, body_parameters(config)) == config


def test_the_papers_range_of_sizes_can_be_laid_out() -> None:
    """40M to 16B in the proportions of the 405B, each near what was asked for (heads of 128 make steps)."""
    for body in (4e7, 2e8, 1e9, 4e9, 1.6e10):
        assert body_parameters(shape_near(llama31_405b(), body)) == pytest.approx(body, rel=0.12)


def test_settings_travel_as_plain_values() -> None:
    assert from_plain(LadderSettings, to_plain(NANO)) == NANO
    assert from_plain(FitSettings, to_plain(FitSettings())) == FitSettings()


def test_seeds_repeat_every_run() -> None:
    plans = ladder(LadderSettings(FLAGSHIP, 4_000_000, 8192, 3e-3, 256, min_steps=5, seeds=(0, 1)))
    assert len(plans) == 24
    assert {plan.seed for plan in plans} == {0, 1}


def test_body_leaves_out_the_vocabulary() -> None:
    assert body_parameters(FLAGSHIP) == FLAGSHIP.parameters() - 4096 * 256


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"budgets": (0.1, 0.2)}, "decades of compute"),
        ({"budgets": (1 / 4000, 1 / 1000)}, "decades of compute"),
        ({"budgets": (0.1, 1.5)}, "shares"),
        ({"spread": (0.5, 2.0)}, "three sizes"),
        ({"spread": (0.99, 1.0, 1.01)}, "shapes"),
        ({"min_steps": 1000}, "steps"),
        ({"flagship_tokens": 0}, "flagship_tokens"),
        ({"seeds": ()}, "seed"),
    ],
)
def test_a_ladder_that_cannot_work_is_refused(change: dict[str, object], reason: str) -> None:
    settings = {"budgets": (1 / 32, 1 / 16, 1 / 8), "flagship_tokens": 4_000_000, "min_steps": 20} | change
    with pytest.raises(SettingError, match=reason):
        ladder(LadderSettings(FLAGSHIP, flagship_batch=8192, flagship_lr=3e-3, seq_len=256, **settings))  # type: ignore[arg-type]
