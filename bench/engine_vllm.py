"""vLLM's side of `bench.engine`, on the CPU: `python -m bench.engine_vllm FOLDER`.

Its engine is stepped by hand, as its `LLM.generate` does; known beginnings are off, so that every prompt is computed.
"""

from __future__ import annotations

import os
import sys

from bench.engine_side import Clock, Pace, Prompts, serve

CONTEXT, BATCHED = 1024, 4096  # tokens of one sequence; tokens of one step

_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # else it leaves one core idle
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def main(folder: str) -> None:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams

    llm = LLM(
        folder,
        dtype="bfloat16",
        max_model_len=CONTEXT,
        max_num_batched_tokens=BATCHED,
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
    )
    engine = llm.llm_engine
    numbers = iter(range(10**9))

    def run(prompts: Prompts, new: int) -> Pace:
        how = SamplingParams(temperature=0.0, max_tokens=new, min_tokens=new, ignore_eos=True, detokenize=False)
        clock = Clock(len(prompts), new)
        names = {}
        for sequence, prompt in enumerate(prompts):
            names[name := str(next(numbers))] = sequence
            engine.add_request(name, {"prompt_token_ids": list(prompt)}, how)
        told = [0] * len(prompts)
        while engine.has_unfinished_requests():
            given = []
            for output in engine.step():
                sequence = names[output.request_id]
                have = len(output.outputs[0].token_ids)
                given += [sequence] * (have - told[sequence])
                told[sequence] = have
            clock.tick(given)
        return clock.pace()

    run([[1] * 16], 4)
    serve(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
