"""Estimates: the released shapes on the published layouts, and small models against what really lies there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from herd.llama.config import LlamaConfig, llama31_405b
from herd.train.parallel.estimate import estimate, told
from herd.train.parallel.plan import ParallelPlan
from herd.train.settings import TrainSettings


@pytest.mark.parametrize(("dp", "cp", "seq_len"), [(64, 1, 8192), (128, 1, 8192), (8, 16, 131_072)])
def test_405b_fits_80_gb_on_the_published_layouts_and_computes_no_product_again(dp: int, cp: int, seq_len: int) -> None:
    settings = TrainSettings(1, 16_777_216, seq_len, seq_len, dtype="bfloat16")
    plan = ParallelPlan(16, dp, cp, 8, virtual=8, recompute="elementwise")
    ranks = estimate(llama31_405b(), plan, settings)
    assert len(ranks) == 16
    assert max(rank.total for rank in ranks) < 80e9
    masters = sum(rank.optimiser for rank in ranks) // 8 * 8 * dp * cp  # moments: 8 bytes an element; tp = 8
    # Norms are on every tensor rank; what does not divide is counted full.
    assert masters == pytest.approx(llama31_405b().parameters(), rel=0.01)


@pytest.mark.parametrize(("cp", "least"), [(1, 1.4), (4, 2.0)])
def test_what_is_made_again_is_not_kept(cp: int, least: float) -> None:
    """Norms, SwiGLU; of context ranks on a GPU all keys, repeated for the query heads that share them."""
    settings = TrainSettings(1, 16_384, 16_384, 16_384, dtype="bfloat16")
    plan = ParallelPlan(cp=cp, tp=8)
    config = LlamaConfig(512, 1024, 16, 32, 8, 3328)  # 405B's proportions
    kept = {
        what: estimate(config, replace(plan, recompute=what), settings)[0].activations
        for what in ("nothing", "elementwise", "mlp", "layer")
    }
    assert kept["nothing"] > least * kept["elementwise"]
    assert kept["elementwise"] > kept["mlp"] > kept["layer"]


def test_one_process_has_everything_and_sends_nothing() -> None:
    config = LlamaConfig(51, 32, 4, 4, 2, 64)
    settings = TrainSettings(1, 64, 16)
    [alone] = estimate(config, ParallelPlan(), settings)
    assert alone.parameters == alone.gradients == 4 * config.parameters()
    assert alone.optimiser == 8 * config.parameters()
    assert not any(alone.sent.values())
    [half] = estimate(config, ParallelPlan(dp=2), settings)
    assert half.optimiser < 0.55 * alone.optimiser
    assert 2 * half.activations - alone.activations == 4 * 51 * 32  # the output matrix has a gradient of any rows
    [cut] = estimate(config, ParallelPlan(tp=2), settings)
    assert cut.optimiser < 0.6 * alone.optimiser
    assert cut.activations < alone.activations
    assert cut.sent["tp"] > 0
    recomputed = estimate(config, ParallelPlan(recompute="layer"), settings)
    assert recomputed[0].activations < alone.activations / 2
    assert "parameters" in told([alone])[0]
