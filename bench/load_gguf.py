"""A GGUF file on disk until it answers: herd beside llama.cpp on the same file, each in a fresh process.

Like `load`: "open" is until the network can be called, "answer" until the first token of a prompt of 16 is there,
"decode" further tokens, as GB of weights a second, files in the page cache. llama.cpp keeps q and k in the file's row
order; herd permutes those matrices while it opens. Both use as many threads as torch.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from bench.harness import Row, make_row
from bench.load import SHAPE_1B, TOKENS, answer, make_checkpoint
from bench.load_worker import PROMPT
from herd.commands.rates import reading_rate
from herd.llama.config import LlamaConfig, llama31_8b
from herd.weights import llama_cpp
from herd.weights.convert import convert
from herd.weights.formats import WriteOptions


def bench_load_gguf(row: str, shape: LlamaConfig, dtype: str, pairs: int) -> list[Row]:
    """Three rows: opening, the first token, further tokens. Runs alternate; the first of each is thrown away."""
    library, threads = llama_cpp.find_library(), torch.get_num_threads()
    ours: list[tuple[float, float, float]] = []
    theirs: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("HERD_BENCH_FOLDER")) as place:
        folder, file = Path(place) / "model", Path(place) / "model.gguf"
        make_checkpoint(folder, shape)
        convert(folder, file, to="gguf", options=WriteOptions(dtype))
        shutil.rmtree(folder)
        size = file.stat().st_size / 1e9
        for _ in range(pairs + 1):
            found = answer("herd", file)
            ours.append((size / found["open"], size / found["first"], size / statistics.median(found["steps"])))
            if library is not None:
                peer = llama_cpp.greedy(library, file, PROMPT, TOKENS, threads=threads)
                print(f"# llama.cpp: {peer}", file=sys.stderr, flush=True)
                step = (peer["all_s"] - peer["first_s"]) / (TOKENS - 1)
                theirs.append((size / peer["open_s"], size / peer["first_s"], size / step))
    limit, peers = reading_rate() / 1e9, list(zip(*theirs[1:], strict=True)) or [(), (), ()]
    return [
        make_row(f"{row}-{what}", "GB/s", rates, others, "llama.cpp", None if what == "open" else limit)
        for what, rates, others in zip(("open", "answer", "decode"), zip(*ours[1:], strict=True), peers, strict=True)
    ]


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "load-gguf": (
        "GB/s of a 1B GGUF file until it is open, until its first token, and decoding, beside llama.cpp",
        lambda: bench_load_gguf("load-gguf", SHAPE_1B, "bf16", 3),
    ),
    "load-gguf-8b-q8": (
        "the same with 8B in Q8_0 (26 GB of disk)",
        lambda: bench_load_gguf("load-gguf-8b-q8", llama31_8b(), "q8_0", 1),
    ),
}
