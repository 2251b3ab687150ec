"""`herd train --dry-run`: what the data is read as, how one item is masked, how long it takes and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from herd.llama.config import LlamaConfig
from herd.posttrain.adoption import Adoption
from herd.road.adopt.data import dialogues_of, few_steps, pairs_of, within_epochs
from herd.road.adopt.model import check_fit, least_bytes
from herd.text import Tokenizer, show_dialogue
from herd.text.chat import Dialogue, Kind
from herd.text.datasets import load_prompts
from herd.train.pairs import Kinded, Preference
from herd.train.sources import PackedRows
from herd.weights.hf import load_config
from herd.weights.settings import FEED_FORWARD

_BYTES = {"plain": 2, "fp8": 1, "int8": 1}  # of a frozen weight


def preview(adoption: Adoption, model: Path, data: Path) -> Iterator[str]:
    """Lines for a person. Raises what training would raise about model, data and settings."""
    config, tokenizer = load_config(model), Tokenizer.load(model)
    check_fit(adoption, config, tokenizer, model)
    if tokenizer.foreign_format:
        yield "template " + tokenizer.foreign_format.told(indent=" " * len("template "))
    if adoption.teacher and not adoption.teacher.folder:
        prompts = load_prompts(data, adoption.columns)
        yield f"data     {prompts.shown()}"
        yield f"ask      {len(prompts.records):,} answers of {adoption.teacher.endpoint.model}"
        return
    if adoption.objective in ("dpo", "reward"):
        pairs = pairs_of(adoption, data, tokenizer)
        settings = within_epochs(adoption, len(pairs.learnt), max(1, adoption.train.rows_per_step // 2))
        notes, items = pairs.notes, f"{len(pairs.learnt):,} pairs, {len(pairs.held):,} held out"
        pair = pairs.learnt[0]
        shown = [("chosen", _answer(pair.chosen, pair)), ("rejected", _answer(pair.rejected, pair))]
    else:
        dialogues = dialogues_of(adoption, data, tokenizer)
        train = adoption.train
        rows = PackedRows(dialogues.learnt, train.seq_len, train.seed, tokenizer.pad)
        settings = within_epochs(adoption, rows.n_rows, train.rows_per_step)
        filled = sum(len(dialogue.ids) for dialogue in dialogues.learnt) / (rows.n_rows * train.seq_len)
        items = f"{len(dialogues.learnt):,} dialogues in {rows.n_rows:,} rows ({filled:.0%} filled)"
        items += f", {len(dialogues.held):,} held out"
        notes, shown = dialogues.notes, [("first", dialogues.learnt[0].whole())]
    yield f"data     {notes[0]}"
    yield from (f"note     {note}" for note in (*notes[1:], few_steps(settings)) if note)
    yield f"learn    {items}"
    yield f"steps    {settings.steps:,} of {settings.batch_tokens:,} tokens, up to {settings.peak_lr:g}"
    yield f"model    {_sizes(adoption, config)}"
    for name, dialogue in shown:
        yield f"{name:<9}{show_dialogue(tokenizer, dialogue, partly=True)}"


def _answer(side: Kinded, pair: Preference) -> Dialogue:
    """A side of a pair with the mask that preference training has: the answer alone."""
    n = pair.prompt_tokens
    trained = [False] * n + list(side.trained[n:])
    return Dialogue(list(side.ids), trained, cast(list[Kind], list(side.kinds)))


def _sizes(adoption: Adoption, config: LlamaConfig) -> str:
    total = config.parameters()
    if adoption.adapter is None:
        size = least_bytes(adoption, config) / 2**30
        return f"{total:,} parameters learn; {size:.1f} GiB of weights, gradients and moments"
    learning = config.n_layers * sum(adoption.adapter.rank * size for size in _widths(adoption, config))
    matrices = config.n_layers * (config.layer_parameters() - 2 * config.dim)
    width = 2 if adoption.train.dtype == "bfloat16" else 4  # "auto" may need as much as float32
    frozen = matrices * min(width, _BYTES[adoption.base] if adoption.base != "plain" else width)
    frozen += (total - matrices) * width
    held = (frozen + learning * 18) / 2**30
    return f"{learning:,} of {total:,} parameters learn; {held:.2f} GiB of weights, gradients and moments"


def _widths(adoption: Adoption, config: LlamaConfig) -> Iterator[int]:
    """in + out of each adapted matrix of a layer."""
    assert adoption.adapter is not None
    for name in adoption.adapter.targets:
        if name in FEED_FORWARD:
            yield config.dim + config.ffn_dim
        else:
            yield config.dim + (config.dim if name in ("q_proj", "o_proj") else config.kv_dim)
