"""Serving: the nodes of the paper and of the release, limits that are limits, refusals with a way out."""

import pytest

from herd.commands.model_costs import cost_of
from herd.errors import SettingError
from herd.llama.config import llama31_8b, llama31_70b, llama31_405b
from herd.scaling.plan.hardware import GPUS
from herd.scaling.plan.network import NETWORKS
from herd.scaling.plan.serving import Held, serving, weight_bytes

ROCE = NETWORKS["roce"]


def held(gpu: str = "h100", context: int = 8192) -> dict[str, Held]:
    return {one.precision: one for one in serving(llama31_405b(), GPUS[gpu], ROCE, context)}


def test_405b_needs_two_nodes_in_bf16_and_one_in_fp8() -> None:
    """Paper, section 6: 16 GPUs on two machines, TP 8 within and PP 2 across; FP8 serves it in one."""
    found = held()
    assert (found["bf16"].nodes, found["bf16"].tp, found["bf16"].pp) == (2, 8, 2)
    assert (found["fp8"].nodes, found["fp8"].gpus) == (1, 8)
    assert held("h200")["bf16"].nodes == 1


def test_weights_are_what_the_files_hold() -> None:
    assert weight_bytes(llama31_405b(), "bf16") == 811_706_777_600  # facts sheet, section 1.3
    narrow = 124 * 3 * 16_384 * 53_248  # the feed-forward of all layers but the first and the last
    scales = 124 * 4 * (2 * 53_248 + 16_384)
    assert weight_bytes(llama31_405b(), "fp8") == 811_706_777_600 - narrow + scales
    for precision in ("bf16", "fp8"):  # as `herd doctor` counts, tensor by tensor
        assert weight_bytes(llama31_8b(), precision) == cost_of(llama31_8b(), precision).stored  # type: ignore[arg-type]


def test_longer_contexts_hold_fewer_sequences_and_answer_more_slowly() -> None:
    short, long = held(context=8192)["fp8"], held(context=131_072)["fp8"]
    assert long.sequences < short.sequences
    assert long.one < short.one
    assert long.many < short.many


@pytest.mark.parametrize("precision", ["bf16", "fp8", "fp8-all-linear"])
def test_no_answer_comes_sooner_than_its_weights_are_read(precision: str) -> None:
    one = held()[precision]
    config = llama31_405b()
    read = one.weight_bytes - 2 * config.embedding_parameters() + 8192 * config.cache_bytes_per_token()
    assert 1 / one.one >= read / (one.tp * GPUS["h100"].memory_rate)
    assert one.many <= one.sequences * one.one * one.pp


def test_published_answers_are_below_the_limit() -> None:
    """TensorRT-LLM 1.0, 1,000 tokens in and 1,000 out (perf-overview): 17,744 tokens/s of 8B in FP8 on one H200."""
    [limit] = [one for one in serving(llama31_8b(), GPUS["h200"], ROCE, 1500) if one.precision == "fp8-all-linear"]
    assert 0.5 < 17_744 / limit.many < 1.0


def test_what_does_not_fit_is_told_what_would() -> None:
    with pytest.raises(SettingError, match="do not hold 382 GiB") as told:
        serving(llama31_405b(), GPUS["h100"], ROCE, 8192, gpus=4)
    assert "give 6 GPUs" in told.value.mend
    with pytest.raises(SettingError, match="context of 0 tokens"):
        serving(llama31_70b(), GPUS["h100"], ROCE, 0)
