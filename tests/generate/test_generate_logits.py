"""A step's logits are the model's, in memory that the next step writes over."""

import pytest
import torch
from generate_models import telling_model

from herd.generate.invariant import with_rows
from herd.generate.logits import StepLogits
from herd.llama.config import LlamaConfig

SHAPE = LlamaConfig(50, 64, 1, 4, 2, 96, max_seq_len=64, tie_embeddings=True)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_a_step_are_the_models_own(dtype):
    model = with_rows(telling_model(SHAPE).to(dtype))
    logits = StepLogits(model, 4)
    for rows in (3, 1, 4, 5, 2):
        hidden = torch.randn(rows, model.config.dim, generator=torch.Generator().manual_seed(rows)).to(dtype)
        with torch.inference_mode():
            found = logits(hidden)
            assert found.dtype == torch.float32
            assert torch.equal(found, model.logits(hidden))
