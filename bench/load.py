"""A BF16 model on disk until it answers: herd's mapped parameters against transformers, each in a fresh process.

"load-open" is until the network can be called, "load-answer" until the first token of a prompt of 16 is there, both as
GB of weights a second; the files are in the page cache (a first run of each is thrown away). The limit of the second
is one reading of all weights from memory. `load` is the 1B shape of `peers`; `load-8b` is Llama 3.1 8B with random
weights and needs 17 GB of disk; `load-8b-fp8` is the same, every matrix quantised (`herd quantize --policy all`; 26 GB
of disk while it is made). Of an embedding that is no output matrix a further token reads one row: "decode" does not
count it. Set HERD_BENCH_FOLDER where /tmp is small.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.harness import Row, make_row
from herd.commands.rates import reading_rate
from herd.files import write_json
from herd.llama.config import LlamaConfig, llama31_8b
from herd.progress import Silent
from herd.quantize.settings import policy_called
from herd.quantize.stream import quantised
from herd.weights.config_json import to_hf
from herd.weights.convert import write_stored
from herd.weights.formats import GIB, WriteOptions
from herd.weights.registry import find_format, open_model
from herd.weights.stored import StoredModel, expected_shapes
from herd.weights.tensors import Entry, write_tensors

SHAPE_1B = LlamaConfig(128_256, 2048, 16, 32, 8, 8192, tie_embeddings=True)
TOKENS = 4


def random_model(shape: LlamaConfig) -> StoredModel:
    """Random BF16 weights, made when they are asked for; values repeat after four million."""
    bank = torch.randn(2**22, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()

    def values(size: tuple[int, ...]) -> torch.Tensor:
        count = torch.Size(size).numel()
        if len(size) == 1:
            return torch.ones(size, dtype=torch.bfloat16)
        return bank.repeat(-(-count // len(bank)))[:count].view(size)

    sizes = expected_shapes(shape)
    tensors = {name: Entry(name, size, torch.bfloat16, partial(values, size)) for name, size in sizes.items()}
    return StoredModel(Path("random"), shape, tensors, bos=128_000, stops=(128_001,))


def make_checkpoint(folder: Path, shape: LlamaConfig) -> int:
    """Random BF16 weights in a Hugging Face folder. Returns their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", to_hf(shape, "bfloat16", bos=128_000, eos=[128_001]))
    return write_tensors(folder, list(random_model(shape).tensors.values()), 5 * GIB)


def answer(program: str, folder: Path) -> dict[str, Any]:
    """One measurement of `load_worker`, in a process of its own."""
    command = [sys.executable, "-m", "bench.load_worker", program, str(folder), str(TOKENS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"# {program}: {json.dumps(found)}", file=sys.stderr, flush=True)
    return found


def make_fp8(folder: Path, shape: LlamaConfig) -> int:
    """The checkpoint above as `herd quantize` makes it FP8. Returns its bytes."""
    made = quantised(random_model(shape), policy_called("all"))
    write_stored(made, folder, find_format("hf"), WriteOptions(), Silent())
    return file_bytes(folder)


def file_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@contextmanager
def model_folder(row: str, make: Callable[[Path], int]) -> Iterator[Path]:
    """The row's model: where it stands already, or made for the while."""
    stated = os.environ.get("HERD_BENCH_MODELS")
    if stated and (Path(stated) / row).is_dir():
        yield Path(stated) / row
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("HERD_BENCH_FOLDER")) as place:
        make(Path(place) / "model")
        yield Path(place) / "model"


def weight_bytes(folder: Path) -> int:
    """Bytes of weights that a further token has to read: all, but of an embedding that is no output matrix one row."""
    stored = open_model(folder)
    unread = () if stored.config.tie_embeddings else ("model.embed_tokens.weight",)
    return sum(entry.n_bytes for name, entry in stored.tensors.items() if name not in unread)


def bench_load(row: str, make: Callable[[Path], int], pairs: int) -> list[Row]:
    """Three rows: opening, the first token, further tokens. Runs of both programs alternate."""
    peer = "transformers" if importlib.util.find_spec("transformers") else ""
    with model_folder(row, make) as folder:
        size, decoded, limits = file_bytes(folder) / 1e9, weight_bytes(folder) / 1e9, []
        found: dict[str, list[dict[str, Any]]] = {"herd": [], "transformers": []}
        for _ in range(pairs + 1):
            limits.append(reading_rate() / 1e9)
            for program in ("herd", peer) if peer else ("herd",):
                found[program].append(answer(program, folder))
    name = "transformers from_pretrained"
    rates_of: dict[str, Callable[[dict[str, Any]], float]] = {
        "open": lambda run: size / run["open"],
        "answer": lambda run: size / run["first"],
        "decode": lambda run: decoded / statistics.median(run["steps"]),
    }
    rows = []
    for what, of in rates_of.items():
        ours, theirs = ([of(run) for run in found[program][1:]] for program in ("herd", "transformers"))
        rows.append(make_row(f"{row}-{what}", "GB/s", ours, theirs, name, None if what == "open" else limits[1:]))
    return rows


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "load": (
        "GB/s of weights until 1B is open, and until its first token",
        lambda: bench_load("load", lambda folder: make_checkpoint(folder, SHAPE_1B), 5),
    ),
    "load-8b": (
        "the same with 8B (17 GB of disk)",
        lambda: bench_load("load-8b", lambda folder: make_checkpoint(folder, llama31_8b()), 1),
    ),
    "load-8b-fp8": (
        "the same with 8B in FP8 (9 GB of disk)",
        lambda: bench_load("load-8b-fp8", lambda folder: make_fp8(folder, llama31_8b()), 1),
    ),
}
