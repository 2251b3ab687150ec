"""AdamW over float32 master weights, with the step's mean, the gradient clip and the bfloat16 copy in one pass over
memory where the compiled library takes them.

With `dtype="bfloat16"` the network computes in a bfloat16 copy of the masters, remade after every update; gradients
of microbatches add up in float32 (paper, section 3.3.2). The caller's model always holds the masters. What is frozen
(`requires_grad` false) has no master: where it is bfloat16 or quantised already, both models share it. Everything is
on the device that the model is on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from herd.devices import device_of
from herd.kernels import training_update
from herd.train.precision import compute_dtype
from herd.train.settings import TrainSettings


class Optimiser:
    """`compute` is the module to run forward and backward on; `step` applies the summed gradients to the masters.

    `casts`: the model itself computes in another format than its masters (FSDP does), and needs no copy.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, casts: bool = False) -> None:
        self.model, self.settings = model, settings
        self.masters = {name: param for name, param in model.named_parameters() if param.requires_grad}
        self.compute: nn.Module = model
        device = device_of(model)
        if compute_dtype(settings, device) == torch.bfloat16 and not casts:
            self.compute = copy.deepcopy(model, _kept_frozen(model)).to(torch.bfloat16)
        self._shadow = dict(self.compute.named_parameters()) if self.compute is not model else {}
        self._scale = 1.0  # of gradients that nobody has multiplied yet
        # Matrices decay, gains do not: the vectors are RMSNorm gains, whose natural value is 1 (herd's choice).
        groups = [
            {"params": [p for p in self.masters.values() if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in self.masters.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=settings.peak_lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            fused=device.type in ("cpu", "cuda"),
        )

    def collect(self, alone: bool = False) -> None:
        """After each microbatch's backward: bfloat16 gradients move into the float32 sums of the masters.

        `alone`: there is no other in the step. Its gradients then stay as they are, for the update to read.
        """
        if alone and self._in_one_pass:
            return
        for name, shadow in self._shadow.items():
            if shadow.grad is None or name not in self.masters:
                continue
            master = self.masters[name]
            if master.grad is None:
                master.grad = shadow.grad.float()
            else:
                master.grad.add_(shadow.grad)
            shadow.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """What is summed so far, by the masters' names; in bfloat16 what was left so."""
        own = {
            name: self._shadow[name].grad if param.grad is None and name in self._shadow else param.grad
            for name, param in self.masters.items()
        }
        return {name: grad for name, grad in own.items() if grad is not None}

    @property
    def _in_one_pass(self) -> bool:
        copies = (self._shadow[name] for name in self.masters if name in self._shadow)
        masters = (own_part(param) for param in self.masters.values())
        gradients = (own_part(gradient).contiguous() for gradient in self.gradients().values())
        return (
            training_update.updates(masters)
            and training_update.updates(copies, torch.bfloat16)
            and training_update.updates(gradients, torch.float32, torch.bfloat16)
        )

    @torch.no_grad()
    def mean_and_clip(self, count: float) -> float:
        """Divide the summed gradients by `count`, clip their global norm; returns the norm before clipping."""
        grads = list(self.gradients().values())
        if self._in_one_pass:
            norm = math.sqrt(training_update.squares([grad.contiguous() for grad in grads])) / count
            self._scale = self._shrinkage(norm) / count  # the update multiplies by it
            return norm
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))) / count
        self.shrink(grads, count, norm)
        return norm

    def shrink(self, grads: list[Tensor], count: float, norm: float) -> None:
        """Divide by `count`, and clip gradients whose norm is `norm` after that division."""
        torch._foreach_mul_(grads, self._shrinkage(norm) / count)

    def _shrinkage(self, norm: float) -> float:
        limit = self.settings.grad_clip
        return limit / (norm + 1e-6) if limit and norm > limit else 1.0

    def step(self, lr: float) -> None:
        """One AdamW update at rate `lr`; gradients are cleared and the compute copy follows the masters."""
        for group in self.adamw.param_groups:
            group["lr"] = lr
        if self._in_one_pass:
            self._step_in_one_pass()
        else:
            self.adamw.step()
            self.refresh()
        self.adamw.zero_grad(set_to_none=True)
        for shadow in self._shadow.values():
            shadow.grad = None

    @torch.no_grad()
    def _step_in_one_pass(self) -> None:
        """What torch's AdamW does, over its own state, with what goes before it and after it."""
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        done = []
        rates = {param: group for group in self.adamw.param_groups for param in group["params"]}
        for name, gradient in self.gradients().items():
            param = self.masters[name]
            group, state = rates[param], self.adamw.state[param]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(param), torch.zeros_like(param)
            state["step"] += 1
            number, lr = float(state["step"]), group["lr"]
            done.append(
                training_update.Updated(
                    own_part(param),
                    own_part(gradient).contiguous(),
                    own_part(state["exp_avg"]),
                    own_part(state["exp_avg_sq"]),
                    self._shadow.get(name),
                    kept=1 - lr * group["weight_decay"],
                    step=lr / (1 - beta1**number),
                    root=1 / math.sqrt(1 - beta2**number),
                )
            )
        training_update.adamw(done, self._scale, (beta1, beta2), self.settings.eps)
        self._scale = 1.0

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the compute copy follow the masters (also after loading a checkpoint)."""
        for name, shadow in self._shadow.items():
            if name in self.masters:
                shadow.copy_(self.masters[name])

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """AdamW's state as named tensors: `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`."""
        for name, param in self.masters.items():
            for key, value in self.adamw.state.get(param, {}).items():
                yield f"{key}.{name}", value

    def empty_moments(self, saved: Callable[[str], bool]) -> None:
        """Let AdamW's state be that of the names, as in `moments`, that `saved` is true of: memory to be filled."""
        for name, param in self.masters.items():
            state = {
                key: torch.zeros((), device=param.device) if key == "step" else torch.empty_like(param.detach())
                for key in ("step", "exp_avg", "exp_avg_sq")
                if saved(f"{key}.{name}")
            }
            if state:
                self.adamw.state[param] = state


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor that may be on many: AdamW takes every number by itself."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def _kept_frozen(model: nn.Module) -> dict[int, Any]:
    """For deepcopy: the tensors that a bfloat16 copy of the model need not own, by id."""
    frozen = [param for param in model.parameters() if not param.requires_grad and param.dtype == torch.bfloat16]
    return {id(tensor): tensor for tensor in [*frozen, *model.buffers()]}
