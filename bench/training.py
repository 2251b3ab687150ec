"""Training tokens per second on one device: herd's loop against a plain transformers + PyTorch loop on the same shape.

Both do forward, backward, gradient clipping and a fused AdamW step on float32 master weights; "bfloat16" computes in it
(the peer by autocast, which is what its users write). The peer's step runs between two steps of herd's real `train()`,
so each pair sees the same machine; each is timed from a finished device to a finished device. The limit is the measured
matrix rate over the FLOPs of a token.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch

from bench.harness import Row, make_row, matrix_rate
from bench.peers import transformers_llama
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.progress import Fact
from herd.train.batch import Batch
from herd.train.loop import train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.settings import TrainSettings
from herd.train.sources import FixedBatches

WARM_UP = 3  # steps that are not counted


class _PeerBetween:
    """A Progress that runs one step of the peer after each of ours, and times both."""

    def __init__(self, peer_step: Callable[[], object] | None, tokens: int, device: torch.device) -> None:
        self.peer_step, self.tokens, self.device = peer_step, tokens, device
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.mark = time.perf_counter()

    def update(self, done: float, total: float, unit: str, facts: Mapping[str, Fact] | None = None) -> None:
        self.ours.append(self._rate())
        if self.peer_step is not None:
            self.peer_step()
            self.theirs.append(self._rate())

    def _rate(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        before, self.mark = self.mark, time.perf_counter()
        return self.tokens / (self.mark - before)

    def note(self, text: str) -> None:
        pass


def _peer(shape: LlamaConfig, tokens_BT: torch.Tensor, bfloat16: bool) -> Callable[[], object] | None:
    """The loop that a user of transformers writes, as a function of one step; None without transformers."""
    model = transformers_llama(shape)
    if model is None:
        return None
    device = tokens_BT.device
    model = model.to(device).train()
    adamw = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss = model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    return step


def bench_training(
    row: str,
    shape: LlamaConfig,
    dtype: Literal["float32", "bfloat16"],
    *,
    batch: int,
    length: int,
    pairs: int,
    device: torch.device | str = "cpu",
) -> Row:
    """The row: `pairs` interleaved steps of both loops over `batch` rows of `length` tokens."""
    device = torch.device(device)
    tokens = torch.randint(0, shape.vocab_size, (batch, length + 1), generator=torch.Generator().manual_seed(0))
    places = torch.arange(length).expand(batch, length)
    whole = Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(batch, length), None, places)
    model = Llama(shape)
    init_weights(model, seed=0)
    settings = TrainSettings(
        steps=WARM_UP + pairs,
        batch_tokens=batch * length,
        seq_len=length,
        warmup_steps=0,
        checkpoint_every_seconds=0,
        dtype=dtype,
    )
    watch = _PeerBetween(_peer(shape, tokens[:, :-1].to(device), dtype == "bfloat16"), batch * length, device)
    with tempfile.TemporaryDirectory() as folder:
        train(model.to(device), LanguageModelling(), FixedBatches([[whole]]), settings, Path(folder), watch)
    limit = matrix_rate(getattr(torch, dtype), size=8192 if device.type == "cuda" else 2048, device=device)
    return make_row(
        row,
        "tokens/s",
        watch.ours[WARM_UP:],
        watch.theirs[WARM_UP:],
        "transformers + PyTorch loop",
        limit / shape.flops_per_token(length),
    )
