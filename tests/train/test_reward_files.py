"""A reward model survives the disk, transformers reads it, and wrong folders are refused."""

from __future__ import annotations

import pytest
import torch
from train_models import tiny_model

from herd.errors import HerdError
from herd.train.objectives.reward import RewardModel
from herd.train.reward_files import load_reward, save_reward

TOKENS = torch.tensor([[1, 2, 3, 4, 0, 0], [5, 6, 7, 8, 9, 10]])
LAST = torch.tensor([3, 5])


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def model(request):
    made = RewardModel(tiny_model(tie_embeddings=request.param))
    torch.nn.init.normal_(made.score.weight, generator=torch.Generator().manual_seed(0))
    return made


def test_rewards_are_the_same_after_the_disk(model, folder):
    save_reward(folder, model, pad=0, dtype=torch.float32, herd={})
    assert torch.equal(load_reward(folder)(TOKENS, LAST), model(TOKENS, LAST))


def test_transformers_gives_the_same_rewards(model, folder):
    transformers = pytest.importorskip("transformers")
    save_reward(folder, model, pad=0, dtype=torch.float32, herd={})
    peer = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        theirs = peer(TOKENS, attention_mask=(TOKENS > 0).long()).logits.squeeze(-1)
        torch.testing.assert_close(model(TOKENS, LAST), theirs, rtol=1e-4, atol=1e-5)


def test_a_damaged_folder_is_refused(model, folder):
    save_reward(folder, model, pad=0, herd={})
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(HerdError, match="safetensors"):
        load_reward(folder)


def test_a_language_model_is_no_reward_model(folder):
    from herd.weights.hf import save_model

    llama = tiny_model()
    save_model(folder, llama, llama.config, herd={})
    with pytest.raises(HerdError, match=r"score\.weight"):
        load_reward(folder)
