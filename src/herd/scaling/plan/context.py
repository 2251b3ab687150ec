"""What context ranks send each other for one layer, in seconds, in the two ways that it is done.

    gathered    keys and values of all ranks once each way, as many as the model has; gradients by one reduce-scatter in
                fp32 (the paper, section 3.3.2; herd's own train/parallel/context.py)
    ring        torch's context parallelism of 2024 (torch/distributed/tensor/experimental/_attention.py, which
                torchtitan uses): attention is given keys and values repeated for every query head, so all of these
                travel; a rank attends to each other rank's apart and adds up the results in fp32; gradients of keys and
                values go round in fp32, a message for each rank

Both are waited for. In the ring it is so because torchtitan compiles its layers, and what is traced waits for a
collective where it begins (torch/distributed/_functional_collectives.py says so); run operation by operation it could
be hidden behind attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from herd.scaling.plan.layer import Costs

# Bytes a number that merging one more rank's part reads and writes, fused: the sum in fp32 and the part in BF16. In
# backward the gradient of queries likewise, those of keys and values also into one message and out of it.
_MERGED, _MERGED_BACK = 10, 10 + 2 * (10 + 8)


def gathered(costs: Costs, direction: Literal["forward", "backward"]) -> float:
    size = 2 * costs.kv * costs.n * costs.way.plan.cp
    if direction == "forward":
        return costs.job.fabric.ring(size * costs.wide, costs.way.context)
    return costs.job.fabric.reduce(size * 4, costs.way.context)


def ring(costs: Costs, direction: Literal["forward", "backward"]) -> float:
    plan, fabric = costs.way.plan, costs.job.fabric
    if plan.cp == 1:
        return 0.0
    numbers = costs.n * costs.job.config.dim / plan.tp  # of this rank's queries, and of keys, and of values
    found = fabric.ring(2 * numbers * plan.cp * costs.wide, costs.way.context)
    if direction == "forward":
        return found + plan.cp * costs.memory(_MERGED * numbers)
    group = costs.way.context
    inside = group.size * group.stride <= costs.job.gpu.node
    hop = group.stride if inside else max(group.stride, costs.job.gpu.node)
    rotated = plan.cp * fabric.send(2 * 4 * numbers, hop)
    return found + rotated + plan.cp * costs.memory(_MERGED_BACK * numbers)
