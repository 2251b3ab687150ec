"""A tiny Llama that half knows the alphabet: small enough for a round in seconds, real enough to be right and wrong."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from posttrain_fakes import Sum, Verdict, bytes_tokenizer

from herd.generate.engine import Engine
from herd.generate.protocol import Request, Sampling
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.posttrain.collect import Means
from herd.posttrain.finish import Scores
from herd.posttrain.ledger import Ledger
from herd.posttrain.settings import (
    Average,
    CollectSettings,
    DpoSettings,
    DrawSettings,
    JudgeSettings,
    QualitySettings,
    RewardSettings,
    RoundSettings,
    SelectSettings,
)
from herd.posttrain.training import sft_dialogues
from herd.text.chat import encode_prompt, parse_reply
from herd.text.message import Message
from herd.train.loop import train
from herd.train.objectives.language_modelling import SupervisedFinetuning
from herd.train.settings import TrainSettings
from herd.train.sources import Batches, PackedRows

CONFIG = LlamaConfig(
    vocab_size=bytes_tokenizer().vocab_size,
    dim=32,
    n_layers=3,
    n_heads=4,
    n_kv_heads=2,
    ffn_dim=64,
    rope_scaling=None,
    max_seq_len=128,
    tie_embeddings=True,
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def successors() -> list[Sum]:
    """26 prompts in two capabilities: the letter that follows, and the one before."""
    follow = [("after", LETTERS[n], LETTERS[n + 1]) for n in range(13)]
    before = [("before", LETTERS[n + 1], LETTERS[n]) for n in range(13)]
    return [
        Sum(f"{kind}/{letter}", (Message("user", f"{kind} {letter}?"),), answer * 3, kind)
        for kind, letter, answer in follow + before
    ]


def seed_dialogues() -> list[tuple[Message, ...]]:
    return [(*task.messages, Message("assistant", task.right)) for task in successors()]


def settings_for(steps: int, lr: float = 3e-3) -> TrainSettings:
    return TrainSettings(
        steps=steps,
        batch_tokens=512,
        seq_len=64,
        peak_lr=lr,
        warmup_steps=5,
        weight_decay=0.0,
        checkpoint_every_seconds=0,
        checkpoint_every_steps=4,
        keep=1,
        spike_factor=0.0,
    )


@cache
def _base() -> Llama:
    model = Llama(CONFIG)
    init_weights(model, seed=0)
    return model


def grown(steps: int) -> Llama:
    """The model after `steps` of SFT on the seed dialogues; 0: untrained."""

    model = copy.deepcopy(_base())
    if steps:
        settings = replace(settings_for(steps, 1e-2), checkpoint_every_steps=0)
        dialogues, _ = sft_dialogues({"seed": (seed_dialogues(), 1.0)}, bytes_tokenizer(), 64, 0, Ledger())
        source = Batches(PackedRows(dialogues, 64, 0), settings)
        with tempfile.TemporaryDirectory() as folder:
            train(model, SupervisedFinetuning(), source, settings, Path(folder))
    return model


def verify(task: Sum, reply: Message) -> Verdict:
    ok = reply.content == task.right
    return Verdict(ok, "" if ok else "another letter")


def evaluate(model: Llama) -> Scores:
    """Greedy accuracy by capability."""
    tokenizer, tasks = bytes_tokenizer(), successors()
    sampling = Sampling(temperature=0.0, max_tokens=6, stop_ids=tokenizer.stop_ids)
    requests = [Request(tuple(encode_prompt(tokenizer, task.messages)), sampling) for task in tasks]
    right: dict[str, list[bool]] = {}
    for task, completion in zip(tasks, Engine(model).generate(requests), strict=True):
        right.setdefault(task.capability, []).append(verify(task, parse_reply(tokenizer, completion.tokens)).ok)
    by_capability = {name: sum(oks) / len(oks) for name, oks in right.items()}
    return Scores(sum(by_capability.values()) / len(by_capability), by_capability)


def means() -> Means:
    return Means(bytes_tokenizer(), verify, Engine)


COLLECT = CollectSettings(
    draw=DrawSettings(k=8, max_tokens=6, prompts_per_batch=10),
    judge=JudgeSettings(agreement_prompts=26),
    quality=QualitySettings(semantic_duplicate=2.0),
    select=SelectSettings(difficulty_weight=0.0, pairs_per_prompt=2, pair_similarity=1.0),
)
ROUND = RoundSettings(
    sft=settings_for(30),
    dpo=DpoSettings(settings_for(6, 3e-4), min_pairs=4),
    reward=RewardSettings(settings_for(10, 1e-3), held_out=0.2, min_pairs=4),
    collect=COLLECT,
    averages=(Average(sft=0.5, dpo=0.5), Average(dpo=1.0), Average(sft=1.0)),
    start="previous",
)
