"""Models for the tests of generation."""

from __future__ import annotations

import torch

from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama


def telling_model(config: LlamaConfig) -> Llama:
    """Far from uniform: a wrong position shows in what it says."""
    model = Llama(config)
    init_weights(model, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() == 2 else 1)
    return model.eval()


def run(engine, requests, after_step=lambda: None):
    """All completions in the order of the requests; each is what came of it, token by token."""
    handles = [engine.submit(request) for request in requests]
    done, came = {}, {handle: [] for handle in handles}
    while engine.busy:
        step = engine.step()
        for one in step.sampled:
            came[one.number].append(one)
        done.update(step.finished)
        after_step()
    for handle, completion in done.items():
        assert tuple(one.token for one in came[handle]) == completion.tokens
        assert tuple(one.logprob for one in came[handle]) == completion.logprobs
        assert tuple(one.top for one in came[handle] if one.top) == completion.top_logprobs
    return [done[handle] for handle in handles]
