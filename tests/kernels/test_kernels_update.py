"""The end of a training step through the library, against torch's AdamW in float64."""

import math

import pytest
import torch

from herd.kernels import training_update
from herd.kernels.training_update import Updated

SHAPES = ((1,), (7, 5), (3, 20_001), (257,))
LR, BETAS, EPS, DECAY = 1e-2, (0.9, 0.95), 1e-6, 0.1


def draw(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES]


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_updates_are_those_of_torch(dtype):
    weights, scale = draw(0), 0.25
    copies = [weight.bfloat16() for weight in weights]
    moments = [[torch.zeros_like(weight) for weight in weights] for _ in range(2)]
    wide = [torch.nn.Parameter(weight.double()) for weight in weights]
    theirs = torch.optim.AdamW(wide, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)
    for number in (1, 2, 3):
        grads = draw(number, dtype)
        root, step = 1 / math.sqrt(1 - BETAS[1] ** number), LR / (1 - BETAS[0] ** number)
        lists = zip(weights, grads, *moments, [None, *copies[1:]], strict=True)
        told = [Updated(*each, kept=1 - LR * DECAY, step=step, root=root) for each in lists]
        training_update.adamw(told, scale, BETAS, EPS)
        for param, grad in zip(wide, grads, strict=True):
            param.grad = grad.double() * scale
        theirs.step()
    for weight, param, first, second in zip(weights, wide, *moments, strict=True):
        torch.testing.assert_close(weight.double(), param.detach(), rtol=2e-6, atol=2e-7)
        for mine, key in ((first, "exp_avg"), (second, "exp_avg_sq")):
            torch.testing.assert_close(mine.double(), theirs.state[param][key], rtol=2e-6, atol=2e-7)
    assert all(torch.equal(copy, weight.bfloat16()) for copy, weight in zip(copies[1:], weights[1:], strict=True))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_squares_are_summed_over_all_tensors(dtype):
    grads = draw(3, dtype)
    true = sum(float(grad.double().square().sum()) for grad in grads)
    assert training_update.squares(grads) == pytest.approx(true, rel=1e-6)
    assert training_update.squares([]) == 0.0
    assert math.isnan(training_update.squares([*grads, torch.tensor([math.nan])]))


@pytest.mark.usefixtures("compiled")
def test_threads_change_no_bit():
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            weights, grads = draw(0), draw(1)
            moments = [[torch.zeros_like(weight) for weight in weights] for _ in range(2)]
            lists = zip(weights, grads, *moments, strict=True)
            training_update.adamw([Updated(*each, None, 0.9, 0.1, 1.1) for each in lists], 1.0, BETAS, EPS)
            found.append((training_update.squares(grads), torch.cat([weight.flatten() for weight in weights])))
    finally:
        torch.set_num_threads(before)
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.usefixtures("compiled")
def test_only_whole_plain_tensors_are_taken():
    whole = torch.ones(4, 4)
    assert training_update.updates([whole, torch.nn.Parameter(whole)])
    for other in (whole[:, 1:], whole.bfloat16(), whole.double(), whole.to("meta")):
        assert not training_update.updates([whole, other])
    assert training_update.updates([whole.bfloat16()], torch.bfloat16)
