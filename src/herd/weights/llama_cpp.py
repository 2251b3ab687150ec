"""llama.cpp as an independent reader of our GGUF files: logits and ids, through its C library, in a child process.

    library = find_library()                       # None when no llama.cpp is installed here
    logits_TV = logits(library, "model.gguf", tokens)
    ids = tokenize(library, "model.gguf", "Once upon a time")

The library is that of the packages `llama-cpp-python` or `xllamacpp` (the same C functions), wherever one of them is
installed: this environment, `.venv-peers` of the working folder, or the file that HERD_LLAMA_CPP names. Only functions
and leading fields that have kept their place for years are used, so the version does not matter. A child process,
because a crash in C should be an error here. Not here: sampling, GPUs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGES = (("llama_cpp", "lib/libllama.so"), ("llama_cpp", "lib/libllama.dylib"), ("xllamacpp", "xllamacpp.abi3.so"))
_ROOM = 4096  # bytes kept for a struct of parameters: more than any version needs


def find_library() -> Path | None:
    """llama.cpp's shared library, or None."""
    if stated := os.environ.get("HERD_LLAMA_CPP"):
        return Path(stated)
    homes = sorted(Path(".venv-peers").glob("lib/python*/site-packages"))
    for package, file in _PACKAGES:
        spec = importlib.util.find_spec(package)
        here = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
        for folder in (*here, *(home / package for home in homes)):
            if (folder / file).is_file():
                return (folder / file).resolve()
    return None


def logits(library: Path, model: Path | str, tokens: Sequence[int], *, threads: int = 1) -> np.ndarray[Any, Any]:
    """fp32 logits [T, V] of one sequence; RuntimeError with llama.cpp's own words when it refuses the file."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.npy"
        _child(library, model, {"tokens": list(tokens), "threads": threads, "out": str(out)})
        found: np.ndarray[Any, Any] = np.load(out)
        return found


def greedy(library: Path, model: Path | str, tokens: Sequence[int], n: int, *, threads: int = 1) -> dict[str, Any]:
    """`n` greedy tokens after a prompt, and the seconds until the model was open, the first and the last token."""
    found: dict[str, Any] = _child(library, model, {"tokens": list(tokens), "threads": threads, "greedy": n})
    return found


def tokenize(library: Path, model: Path | str, text: str, *, special: bool = False) -> list[int]:
    """The ids of a text without begin-of-text; `special` lets the text spell special tokens."""
    ids: list[int] = _child(library, model, {"text": text, "special": special})["ids"]
    return ids


def _child(library: Path, model: Path | str, request: dict[str, Any]) -> Any:
    done = subprocess.run(
        [sys.executable, "-P", __file__, str(library), str(model)],  # -P: nothing beside this file is importable
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # its log cuts a token's spelling anywhere
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"llama.cpp failed on {model} (exit {done.returncode}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class _Parameters(ctypes.Structure):
    """Any parameters struct: passed in memory, so more room than it needs does no harm."""

    _fields_ = (("words", ctypes.c_uint32 * (_ROOM // 4)),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


class LlamaCpp:
    """A model open in llama.cpp, in this process. Lives in the child; `logits` and its kin above start one."""

    def __init__(self, library: str, model: str) -> None:
        c = self.c = ctypes.CDLL(library)
        for name in ("llama_model_default_params", "llama_context_default_params"):
            getattr(c, name).restype = _Parameters
        for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab"):
            getattr(c, name).restype = ctypes.c_void_p
        c.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        c.llama_batch_init.restype = _Batch
        c.llama_backend_init()
        self.model = ctypes.c_void_p(c.llama_model_load_from_file(model.encode(), c.llama_model_default_params()))
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {model}")
        self.vocab = ctypes.c_void_p(c.llama_model_get_vocab(self.model))
        self.n_vocab = int(c.llama_vocab_n_tokens(self.vocab))

    def start(self, n_ctx: int, threads: int, n_batch: int = 512) -> None:
        parameters = self.c.llama_context_default_params()
        parameters.words[0:3] = [-(-n_ctx // 256) * 256, n_batch, n_batch]  # n_ctx, n_batch, n_ubatch lead the struct
        self.context = ctypes.c_void_p(self.c.llama_init_from_model(self.model, parameters))
        if not self.context:
            raise SystemExit("llama.cpp cannot make a context")
        self.c.llama_set_n_threads(self.context, threads, threads)
        self.batch, self.n_batch, self.at = self.c.llama_batch_init(n_batch, 0, 1), n_batch, 0

    def push(self, tokens: Sequence[int], *, last_only: bool = False) -> np.ndarray[Any, Any]:
        """Logits after each of these tokens, which follow those pushed before, or after the last one alone."""
        rows, skipped = [], len(tokens) - 1 if last_only else 0
        for begin in range(0, len(tokens), self.n_batch):
            part = tokens[begin : begin + self.n_batch]
            self.batch.n_tokens = len(part)
            for i, token in enumerate(part):
                self.batch.token[i], self.batch.pos[i] = token, self.at + i
                self.batch.n_seq_id[i], self.batch.logits[i] = 1, begin + i >= skipped
                self.batch.seq_id[i][0] = 0
            if (code := self.c.llama_decode(self.context, self.batch)) != 0:
                raise SystemExit(f"llama_decode returned {code}")
            self.at += len(part)
            for i in range(max(0, skipped - begin), len(part)):
                row = self.c.llama_get_logits_ith(self.context, i)
                rows.append(np.ctypeslib.as_array(row, (self.n_vocab,)).copy())
        return np.stack(rows)

    def ids(self, text: str, special: bool) -> list[int]:
        raw = text.encode()
        room = (ctypes.c_int32 * (len(raw) + 16))()
        count = self.c.llama_tokenize(
            self.vocab, raw, len(raw), room, len(room), ctypes.c_bool(False), ctypes.c_bool(special)
        )
        return list(room[:count])


def _serve(library: str, model: str) -> None:
    import time

    request, begin = json.loads(sys.stdin.read()), time.perf_counter()
    engine = LlamaCpp(library, model)
    if "text" in request:
        print(json.dumps({"ids": engine.ids(request["text"], request["special"])}))
        return
    tokens, more = request["tokens"], request.get("greedy", 0)
    engine.start(len(tokens) + more, request["threads"])
    opened = time.perf_counter() - begin
    found = engine.push(tokens, last_only=more > 0)
    first = time.perf_counter() - begin
    if not more:
        np.save(request["out"], found)
        print("{}")
        return
    made = [int(found[-1].argmax())]
    while len(made) < more:
        made.append(int(engine.push(made[-1:])[-1].argmax()))
    whole = time.perf_counter() - begin
    print(json.dumps({"tokens": made, "open_s": opened, "first_s": first, "all_s": whole}))


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2])
