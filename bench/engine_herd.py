"""herd's side of `bench.engine`: `python -m bench.engine_herd FOLDER`, the engine over pages as a server runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from bench.engine_side import Clock, Pace, Prompts, serve
from herd.generate.engine import Engine
from herd.generate.protocol import Request, Sampling
from herd.generate.settings import SchedulerSettings
from herd.weights.build import load_any
from herd.weights.resident import fits, make_resident

CACHE_TOKENS = 16_384


def main(folder: str) -> None:
    model = load_any(Path(folder), dtype=torch.bfloat16)
    if fits(model):  # as herd serve does
        make_resident(model)
    engines = {
        share: Engine(model, cache_tokens=CACHE_TOKENS, scheduling=SchedulerSettings(share=share))
        for share in (True, False)
    }

    def run(prompts: Prompts, new: int, share: bool = True) -> Pace:
        """Nothing is known of the prompts beforehand."""
        engine = engines[share]
        engine.continuous.forget()
        clock = Clock(len(prompts), new)
        for prompt in prompts:
            engine.submit(Request(tuple(prompt), Sampling(temperature=0.0, max_tokens=new)))
        while engine.busy:
            clock.tick(sampled[0] for sampled in engine.step().sampled)
        return clock.pace()

    serve(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
