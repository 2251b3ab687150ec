"""transformers' side of `bench.engine`: the compiled forward pass, first tokens alone (prefill).

`python -m bench.engine_transformers FOLDER LENGTH`; the pass for prompts of that length is compiled at the start.
"""

from __future__ import annotations

import os
import sys

from bench.engine_side import Clock, Pace, Prompts, serve


def main(folder: str, length: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    compiled = torch.compile(model, dynamic=False)

    def run(prompts: Prompts, new: int) -> Pace:
        assert len(prompts) == new == 1, "one first token is all that is measured here"
        with torch.inference_mode():
            ids = torch.tensor([list(prompts[0])])
            clock = Clock(1, 1)
            int(compiled(ids, use_cache=False, logits_to_keep=1).logits[0, -1].argmax())
            clock.tick([0])
        return clock.pace()

    for _ in range(2):
        run([range(1, int(length) + 1)], 1)
    serve(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
