"""What the tests on a CUDA device share: the marks, a small model, packed rows, pairs, and both devices."""

from __future__ import annotations

import pytest
import torch

from herd.devices import device_of
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.train.batch import Batch
from herd.train.objectives.distillation import Distillation
from herd.train.objectives.dpo import DirectPreference, reference_logprobs
from herd.train.objectives.language_modelling import LanguageModelling, SupervisedFinetuning
from herd.train.objectives.reward import RewardModel, RewardObjective
from herd.train.pairs import PairBatches, Preference
from herd.train.settings import TrainSettings
from herd.train.sources import Batches, PackedRows
from herd.train.teacher import TaughtRows, TeacherTopK, store_teacher_topk
from herd.weights.frozen import FrozenLinear
from herd.weights.lora import attach, matrices, put
from herd.weights.settings import LoraSettings

ON_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
SHAPE = LlamaConfig(vocab_size=512, dim=128, n_layers=4, n_heads=8, n_kv_heads=2, ffn_dim=256)
LENGTH, ROWS = 128, 8
OBJECTIVES = ("language_modelling", "sft", "distillation", "dpo", "reward")
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Talk:
    """A dialogue as the packing wants it: `prompt` ids that are not trained, then content and a stop that are."""

    def __init__(self, prompt: int, answer: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids = [*torch.randint(1, 500, (prompt + answer,), generator=generator).tolist(), 511]
        self.trained = [False] * prompt + [True] * (answer + 1)
        self.kinds = ["header"] * prompt + ["content"] * answer + ["stop"]


def talks() -> list[Talk]:
    return [Talk(8 + n % 5, 10 + n % 17, n) for n in range(40)]


def pairs() -> list[Preference]:
    made = []
    for n in range(16):
        sides = [Talk(8, 6 + (n + side) % 9, 100 * n + side) for side in (1, 2)]
        sides[1].ids[:8] = sides[0].ids[:8]
        made.append(Preference(sides[0], sides[1], 8))
    return made


def tiny(kind: str = "full", dtype: torch.dtype = torch.float32, seed: int = 0) -> Llama:
    """A model in training mode on the CPU: "full", or an adapter over a "plain", "fp8" or "int8" base."""
    model = Llama(SHAPE)
    init_weights(model, seed, 0.08)
    model.to(dtype)
    if kind != "full":
        for name, layer in matrices(model, LoraSettings().targets) if kind != "plain" else ():
            put(model, name, FrozenLinear.of(layer, kind))
        attach(model, LoraSettings(rank=8))
        with torch.no_grad():  # an adapter that says something
            for name, param in model.named_parameters():
                if name.endswith("lora_B"):
                    param.normal_(0.0, 0.05, generator=torch.Generator().manual_seed(3))
    return model.train()


def settings(**changes: object) -> TrainSettings:
    values = {"steps": 6, "batch_tokens": ROWS * LENGTH, "seq_len": LENGTH, "microbatch_tokens": ROWS * LENGTH // 2}
    values |= {"peak_lr": 1e-3, "warmup_steps": 1, "checkpoint_every_seconds": 0}
    return TrainSettings(**(values | changes))  # type: ignore[arg-type]


def objective(name: str, folder, how: TrainSettings):
    """(objective, source) whose numbers were computed on the CPU."""
    rows = PackedRows(talks(), LENGTH, seed=0)
    if name == "distillation":
        if not (folder / "teacher").exists():
            store_teacher_topk(folder / "teacher", tiny(seed=5), rows, rows.n_rows, 16, tokenizer_fingerprint="a")
        return Distillation(), Batches(TaughtRows(rows, TeacherTopK.open(folder / "teacher", "a")), how)
    if name == "dpo":
        return DirectPreference(), PairBatches(pairs(), how, reference_logprobs(tiny(seed=5), pairs(), 1024))
    if name == "reward":
        return RewardObjective(), PairBatches(pairs(), how)
    return (LanguageModelling() if name == "language_modelling" else SupervisedFinetuning()), Batches(rows, how)


def for_objective(name: str, llama: Llama):
    """The model that an objective trains; a reward's head is given something to say."""
    if name != "reward":
        return llama
    model = RewardModel(llama).train()
    with torch.no_grad():
        model.score.weight.copy_(torch.linspace(-0.1, 0.1, SHAPE.dim)[None])
    return model


def gradients(model, objective, batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    """Summed loss and gradients of batches where the model is, both brought to the CPU."""
    total = 0.0
    for batch in batches:
        terms = objective.terms(model, batch.to(device_of(model)))
        terms.total.backward()
        total += float(terms.total.detach())
    return total, {name: param.grad.cpu() for name, param in model.named_parameters() if param.grad is not None}
