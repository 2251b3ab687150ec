"""Estimates: the released shapes on the published layouts, and small models against what really lies there."""

from __future__ import annotations

import pytest

from herd.llama.config import LlamaConfig, llama31_405b
from herd.train.parallel.estimate import estimate, told
from herd.train.parallel.plan import ParallelPlan
from herd.train.settings import TrainSettings


@pytest.mark.parametrize(
    ("dp", "cp", "seq_len", "recompute"), [(64, 1, 8192, "mlp"), (128, 1, 8192, "mlp"), (8, 16, 131_072, "layer")]
)
def test_405b_fits_80_gb_on_the_published_layouts(dp: int, cp: int, seq_len: int, recompute: str) -> None:
    """The paper's, which recomputes nothing, keep less than ours: docs/parallelism.md."""
    settings = TrainSettings(1, 16_777_216, seq_len, seq_len, dtype="bfloat16")
    ranks = estimate(llama31_405b(), ParallelPlan(16, dp, cp, 8, virtual=8, recompute=recompute), settings)
    assert len(ranks) == 16
    assert max(rank.total for rank in ranks) < 80e9
    masters = sum(rank.optimiser for rank in ranks) // 8 * 8 * dp * cp  # moments: 8 bytes an element; tp = 8
    # Norms are on every tensor rank; what does not divide is counted full.
    assert masters == pytest.approx(llama31_405b().parameters(), rel=0.01)


def test_one_process_has_everything_and_sends_nothing() -> None:
    config = LlamaConfig(51, 32, 4, 4, 2, 64)
    settings = TrainSettings(1, 64, 16)
    [alone] = estimate(config, ParallelPlan(), settings)
    assert alone.parameters == alone.gradients == 4 * config.parameters()
    assert alone.optimiser == 8 * config.parameters()
    assert not any(alone.sent.values())
    [half] = estimate(config, ParallelPlan(dp=2), settings)
    assert half.optimiser < 0.55 * alone.optimiser
    assert half.activations == alone.activations // 2
    [cut] = estimate(config, ParallelPlan(tp=2), settings)
    assert cut.optimiser < 0.6 * alone.optimiser
    assert cut.activations < alone.activations
    assert cut.sent["tp"] > 0
    recomputed = estimate(config, ParallelPlan(recompute="layer"), settings)
    assert recomputed[0].activations < alone.activations / 2
    assert "parameters" in told([alone])[0]
