"""Training tokens per second: herd's loop against a plain transformers + PyTorch loop on the same shapes.

Both do forward, backward, gradient clipping and a fused AdamW step on float32 master weights; "bf16" computes in
bfloat16 (the peer by autocast, which is what its users write). The peer's step runs between two steps of herd's
real `train()`, so each pair sees the same machine. The limit is the measured matrix rate over the FLOPs of a token.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
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

SHAPE = LlamaConfig(vocab_size=4096, dim=256, n_layers=6, n_heads=8, n_kv_heads=4, ffn_dim=768)
BATCH, LENGTH = 8, 512
WARM_UP = 3  # steps that are not counted


class _PeerBetween:
    """A Progress that runs one step of the peer after each of ours and keeps the time of both."""

    def __init__(self, peer_step: Callable[[], object] | None) -> None:
        self.peer_step = peer_step
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def update(self, done: float, total: float, unit: str, facts: Mapping[str, Fact] | None = None) -> None:
        assert facts is not None
        self.ours.append(float(facts["tokens/s"]))
        if self.peer_step is not None:
            started = time.perf_counter()
            self.peer_step()
            self.theirs.append(BATCH * LENGTH / (time.perf_counter() - started))

    def note(self, text: str) -> None:
        pass


def peer_step(tokens_BT: torch.Tensor, bfloat16: bool) -> Callable[[], object] | None:
    """The loop that a user of transformers writes, as a function of one step; None without transformers."""
    model = transformers_llama(SHAPE)
    if model is None:
        return None
    model.train()
    adamw = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    return step


def bench_train(dtype: str, pairs: int = 7) -> Row:
    """One row: interleaved steps of both loops, float32 or bfloat16."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, SHAPE.vocab_size, (BATCH, LENGTH + 1), generator=generator)
    batch = Batch(
        tokens[:, :-1],
        tokens[:, 1:],
        torch.ones(BATCH, LENGTH),
        None,
        torch.arange(LENGTH).expand(BATCH, LENGTH),
    )
    model = Llama(SHAPE)
    init_weights(model, seed=0)
    settings = TrainSettings(
        steps=WARM_UP + pairs,
        batch_tokens=BATCH * LENGTH,
        seq_len=LENGTH,
        warmup_steps=0,
        checkpoint_every_seconds=0,
        dtype="bfloat16" if dtype == "bfloat16" else "float32",
    )
    watch = _PeerBetween(peer_step(tokens[:, :-1], dtype == "bfloat16"))
    with tempfile.TemporaryDirectory() as folder:
        train(model, LanguageModelling(), FixedBatches([[batch]]), settings, Path(folder), watch)
    limit = matrix_rate(getattr(torch, dtype)) / SHAPE.flops_per_token(LENGTH)
    return make_row(
        f"train-{dtype}",
        "tokens/s",
        watch.ours[WARM_UP:],
        watch.theirs[WARM_UP:],
        "transformers + PyTorch loop",
        limit,
    )


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "train": (
        "training tokens/s, float32 and bfloat16",
        lambda: [bench_train("float32"), bench_train("bfloat16")],
    )
}
