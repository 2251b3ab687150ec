"""The models of `bench.engine`, random weights in the 1B shape: a BF16 folder, an FP8 one, and GGUF files of it.

    python -m bench.engine_models FOLDER      # made beforehand; HERD_BENCH_MODELS=FOLDER lets the rows use them

Without HERD_BENCH_MODELS they are made in a temporary folder and removed after the run (8 GB).
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bench.load import SHAPE_1B, make_checkpoint
from herd.commands.quantize import quantize
from herd.weights.convert import convert
from herd.weights.formats import WriteOptions


@dataclass(frozen=True)
class Models:
    """What each program opens; made where it is missing."""

    place: Path

    @property
    def bf16(self) -> Path:
        folder = self.place / "bf16"
        if not (folder / "config.json").exists():
            making = _afresh(self.place / "bf16.part")
            make_checkpoint(making, SHAPE_1B)
            making.rename(folder)
        return folder

    @property
    def chatty(self) -> Path:
        """The BF16 folder with a tokenizer, for a server: ranks of printable ASCII, so that every token shows."""
        folder = self.place / "chatty"
        if not folder.exists():
            making = _afresh(self.place / "chatty.part")
            making.mkdir()
            for file in self.bf16.iterdir():
                os.link(file, making / file.name)
            (making / "tokenizer.model").write_text(_ranks(), encoding="ascii")
            making.rename(folder)
        return folder

    @property
    def fp8(self) -> Path:
        """Every matrix in FP8, the output head too."""
        folder = self.place / "fp8"
        if not folder.exists():
            quantize(self.bf16, folder, policy="all")
        return folder

    def gguf(self, dtype: str) -> Path:
        file = self.place / f"{dtype}.gguf"
        if not file.exists():
            convert(self.bf16, file, to="gguf", options=WriteOptions(dtype))
        return file


@contextmanager
def models() -> Iterator[Models]:
    if stated := os.environ.get("HERD_BENCH_MODELS"):
        yield Models(Path(stated))
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("HERD_BENCH_FOLDER")) as place:
        yield Models(Path(place))


def _ranks() -> str:
    """tiktoken's ranks: the bytes, then pairs and triples of letters, digits and the like."""
    printable = [bytes([byte]) for byte in range(33, 127)]
    pairs = [a + b for a in printable for b in printable]
    triples = (pair + one for pair in pairs for one in printable)
    texts = [*(bytes([byte]) for byte in range(256)), *pairs]
    texts += islice(triples, 128_000 - len(texts))
    return "".join(f"{base64.b64encode(text).decode()} {rank}\n" for rank, text in enumerate(texts))


def _afresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


if __name__ == "__main__":
    made = Models(Path(sys.argv[1]))
    print(made.bf16, made.gguf("bf16"), made.gguf("q8_0"), made.fp8, sep="\n")
