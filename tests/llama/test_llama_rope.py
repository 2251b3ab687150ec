"""Scaled rotary frequencies against the facts' table 11.1, and properties of the rotation."""

import pytest
import torch

from herd.llama import fused
from herd.llama.config import LlamaConfig, RopeScaling
from herd.llama.rope import document_starts, inverse_frequencies, rotation

GOLDEN = {
    0: 1.0,
    1: 8.1461723386e-01,
    16: 3.7606030931e-02,
    28: 3.2114459948e-03,
    29: 2.1665707635e-03,
    30: 1.3718935678e-03,
    31: 8.5675141292e-04,
    32: 5.2484616099e-04,
    33: 3.1269375038e-04,
    34: 1.7850781277e-04,
    35: 9.5562123540e-05,
    48: 6.6478698712e-06,
    63: 3.0689259889e-07,
}


def test_scaled_frequencies_are_the_published_ones():
    found = inverse_frequencies(128, 5e5, RopeScaling())
    torch.testing.assert_close(found[list(GOLDEN)], torch.tensor(list(GOLDEN.values())), rtol=1e-5, atol=0)
    assert found.double().sum().item() == pytest.approx(5.386058200728573, rel=1e-6)


def test_unscaled_frequencies():
    found = inverse_frequencies(128, 5e5, None)
    assert found.double().sum().item() == pytest.approx(5.394233891332534, rel=1e-6)
    assert found[63].item() == pytest.approx(2.4551407911e-06, rel=1e-5)


def test_which_frequencies_change():
    ratio = inverse_frequencies(128, 5e5, RopeScaling()) / inverse_frequencies(128, 5e5, None)
    assert (ratio[:29] == 1).all()
    assert ((ratio[29:35] > 0.125) & (ratio[29:35] < 1)).all()
    assert (ratio[35:] == 0.125).all()


def test_scores_depend_on_distance_only():
    config = LlamaConfig(9, 16, 1, 1, 1, 8, rope_scaling=None)
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def score(at_q, at_k):
        turned = []
        for x, at in ((q, at_q), (k, at_k)):
            cos, sin = (part.double()[..., None, :] for part in rotation(config, torch.tensor([[at]])))
            turned.append(fused.rotate(x, cos, sin))
        return (turned[0] * turned[1]).sum().item()

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(8, 3), abs=1e-3)


def test_documents_start_where_ids_change():
    ids = torch.tensor([[5, 5, 5, 7, 7, 5, 5], [1, 2, 3, 4, 4, 4, 4]])
    assert document_starts(ids).tolist() == [[0, 0, 0, 3, 3, 5, 5], [0, 1, 2, 3, 3, 3, 3]]
