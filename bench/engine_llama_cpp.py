"""llama.cpp's side of `bench.engine`: `python -m bench.engine_llama_cpp FILE`, its C library by ctypes.

As its own `llama-batched-bench` does, prompts are computed in batches of 2048 tokens (512 at once), one sequence id
each, and continuations as one batch a step. The tokens that follow are given, not sampled: that is not counted here.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

from bench.engine_side import Clock, Pace, Prompts, serve
from herd.weights.llama_cpp import LlamaCpp, find_library

CONTEXT, SEQUENCES, BATCH, AT_ONCE = 16_384, 32, 2048, 512

Item = tuple[int, int, int, bool]  # token, position, sequence, whether its logits are wanted


class Batched(LlamaCpp):
    """llama.cpp with many sequences in one context."""

    def begin(self, threads: int) -> None:
        parameters = self.c.llama_context_default_params()
        parameters.words[0:4] = [CONTEXT, BATCH, AT_ONCE, SEQUENCES]  # n_ctx, n_batch, n_ubatch, n_seq_max lead
        self.context = ctypes.c_void_p(self.c.llama_init_from_model(self.model, parameters))
        if not self.context:
            raise SystemExit("llama.cpp cannot make a context")
        self.c.llama_set_n_threads(self.context, threads, threads)
        self.c.llama_get_memory.restype = ctypes.c_void_p
        self.batch = self.c.llama_batch_init(BATCH, 0, 1)

    def forget(self) -> None:
        memory = ctypes.c_void_p(self.c.llama_get_memory(self.context))
        self.c.llama_memory_clear(memory, ctypes.c_bool(False))

    def decode(self, items: Sequence[Item]) -> None:
        self.batch.n_tokens = len(items)
        for i, (token, position, sequence, wanted) in enumerate(items):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i] = token, position, 1
            self.batch.seq_id[i][0], self.batch.logits[i] = sequence, wanted
        if (code := self.c.llama_decode(self.context, self.batch)) != 0:
            raise SystemExit(f"llama_decode returned {code}")
        self.c.llama_synchronize(self.context)


def main(file: str) -> None:
    library = find_library()
    if library is None:
        raise SystemExit("no llama.cpp is installed: make bench-peers")
    engine = Batched(str(library), file)
    engine.begin(int(os.environ["OMP_NUM_THREADS"]))

    def run(prompts: Prompts, new: int) -> Pace:
        engine.forget()
        clock = Clock(len(prompts), new)
        whole = [(t, at, s, at == len(p) - 1) for s, p in enumerate(prompts) for at, t in enumerate(p)]
        for begin in range(0, len(whole), BATCH):
            part = whole[begin : begin + BATCH]
            engine.decode(part)
            clock.tick(sequence for _, _, sequence, last in part if last)
        for more in range(new - 1):
            engine.decode([(prompt[0] + more, len(prompt) + more, s, True) for s, prompt in enumerate(prompts)])
            clock.tick(range(len(prompts)))
        return clock.pace()

    serve(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
