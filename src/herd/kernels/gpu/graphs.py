"""A step of fixed shapes as one CUDA graph: its hundreds of kernels are launched together.

    step = Captured(lambda tokens, positions, tables: paged(tokens, ...), {"tokens": ..., "positions": ..., ...})
    hidden = step(tokens=..., positions=..., tables=...)     # the same tensor at every call: read it before the next

Decoding one token launches some ten kernels a layer, and a fast device waits for the processor that launches them.
What is captured may not depend on values: sizes, pages a row and the tensors behind parameters and caches stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_WARM_UP = 3  # runs before capturing: kernels compile, libraries take their workspaces


class Captured:
    """`step` over tensors of the shapes of `inputs`, on their device; it may not wait for the device."""

    def __init__(self, step: Callable[..., Tensor], inputs: Mapping[str, Tensor], pool: Any = None) -> None:
        """`pool`: memory that graphs share of which one runs at a time (`torch.cuda.graph_pool_handle`)."""
        self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        self._device = next(iter(self._inputs.values())).device
        with torch.cuda.device(self._device), torch.no_grad():
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    step(**self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, pool=pool):
                self._out = step(**self._inputs)

    def __call__(self, **inputs: Tensor) -> Tensor:
        """What the step gives for these inputs, which may lie in main memory; overwritten by the next call."""
        for name, tensor in self._inputs.items():
            if inputs[name].shape != tensor.shape:
                raise ValueError(f"{name} is {tuple(inputs[name].shape)}; {tuple(tensor.shape)} was captured")
            tensor.copy_(inputs[name])
        with torch.cuda.device(self._device):
            self._graph.replay()
        return self._out
