"""Training tokens per second on a CUDA device: herd's loop against a plain transformers + PyTorch loop, a 1B shape.

Both compute in bfloat16 over float32 master weights (the peer by autocast) and step with fused AdamW; the peer's step
runs between two of herd's real `train()`. Each side is timed from a finished device to a finished device. The limit is
the measured rate of bfloat16 products over the FLOPs of a token: what is reached of it is the utilisation (MFU).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

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

# The released 1B of Llama 3.2, with the rotation of 3.1: its parameters and FLOPs are the same.
SHAPE_1B = LlamaConfig(
    vocab_size=128_256, dim=2048, n_layers=16, n_heads=32, n_kv_heads=8, ffn_dim=8192, tie_embeddings=True
)
BATCH, LENGTH = 4, 2048
WARM_UP = 3  # steps that are not counted


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _PeerBetween:
    """A Progress that waits for the device after each of our steps, runs one of the peer, and times both."""

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
        _finish(self.device)
        before, self.mark = self.mark, time.perf_counter()
        return self.tokens / (self.mark - before)

    def note(self, text: str) -> None:
        pass


def _peer(shape: LlamaConfig, tokens_BT: torch.Tensor) -> Callable[[], object] | None:
    """The loop that a user of transformers writes, as a function of one step; None without transformers."""
    model = transformers_llama(shape)
    if model is None:
        return None
    device = tokens_BT.device
    model = model.to(device).train()
    adamw = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    return step


def bench_gpu(
    shape: LlamaConfig, device: torch.device, batch: int = BATCH, length: int = LENGTH, pairs: int = 10
) -> Row:
    """One row: interleaved steps of both loops on `device`."""
    tokens = torch.randint(0, shape.vocab_size, (batch, length + 1), generator=torch.Generator().manual_seed(0))
    whole = torch.arange(length).expand(batch, length)
    one = Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(batch, length), None, whole)
    model = Llama(shape)
    init_weights(model, seed=0)
    settings = TrainSettings(
        steps=WARM_UP + pairs,
        batch_tokens=batch * length,
        seq_len=length,
        warmup_steps=0,
        checkpoint_every_seconds=0,
        dtype="bfloat16",
    )
    watch = _PeerBetween(_peer(shape, tokens[:, :-1].to(device)), batch * length, device)
    with tempfile.TemporaryDirectory() as folder:
        train(model.to(device), LanguageModelling(), FixedBatches([[one]]), settings, Path(folder), watch)
    limit = matrix_rate(torch.bfloat16, size=8192 if device.type == "cuda" else 1024, device=device)
    row = make_row(
        "gpu-train-1b-bfloat16",
        "tokens/s",
        watch.ours[WARM_UP:],
        watch.theirs[WARM_UP:],
        "transformers + PyTorch loop",
        limit / shape.flops_per_token(length),
    )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else row.machine
    return replace(row, machine=name)


def rows() -> list[Row]:
    if not torch.cuda.is_available():
        print("gpu: torch finds no CUDA device, nothing is measured", file=sys.stderr)
        return []
    return [bench_gpu(SHAPE_1B, torch.device("cuda", 0))]


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "gpu": ("training tokens/s and utilisation of a 1B shape on a CUDA device; nothing without one", rows)
}
