"""What a run is between two steps, as flat names -> tensors: what goes into its checkpoints and comes back.

    model.NAME                  the float32 masters of what is trained; the frozen comes from where the caller has it
    optimiser.exp_avg.NAME      AdamW's moments (exp_avg, exp_avg_sq) and its own count of steps (step)
    average.NAME                the annealing mean so far, if any
    rng.RANK.KIND               the random generators of each process (rng.py)

NAME is Hugging Face's, whatever the plan, so that any plan finds what another has written. A process gives the names
that it has (its pipeline stages), and of each its shard. Plain values (step, counts, loss window) are the loop's.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from herd.files import write_json
from herd.llama.config import LlamaConfig
from herd.train import rng
from herd.train.averaging import WeightAverage
from herd.train.checkpoints import Saved
from herd.train.optimiser import Optimiser
from herd.weights.config_json import generation_config, to_hf
from herd.weights.stored import SavesFiles


@dataclass(frozen=True)
class RunState:
    """The parts of a run that hold tensors, on `device`, in the process of rank `rank`."""

    optimiser: Optimiser
    average: WeightAverage
    device: torch.device
    rank: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name; the run's own memory, not copies."""
        drawn = {f"rng.{self.rank}.{kind}": state for kind, state in rng.states(self.device).items()}
        return {**self.weights(), **self._moments(), **self._means(), **drawn}

    def weights(self) -> dict[str, Tensor]:
        """What is trained alone."""
        return {f"model.{name}": param for name, param in self.optimiser.masters.items()}

    def restore(self, saved: Saved) -> None:
        """Put back what a checkpoint holds. ArtifactError for one of a model of another shape."""
        self.begin_with(saved)
        self.average.begin(int(saved.state["average_count"]), self.optimiser.masters)
        drawn = self._empty_generators(saved)
        saved.load({**self._means(), **drawn})
        rng.restore({name.rpartition(".")[2]: state for name, state in drawn.items()}, self.device)

    def begin_with(self, saved: Saved) -> None:
        """Take weights and AdamW's state of an earlier phase of the same model. ArtifactError for another shape."""
        masters = self.weights()
        saved.check_shapes("model", {name: tuple(param.shape) for name, param in masters.items()})
        self.optimiser.empty_moments(lambda name: f"optimiser.{name}" in saved.shapes)
        saved.load({**masters, **self._moments()})
        self.optimiser.refresh()

    def _moments(self) -> dict[str, Tensor]:
        return {f"optimiser.{name}": moment for name, moment in self.optimiser.moments()}

    def _means(self) -> dict[str, Tensor]:
        return {f"average.{name}": mean for name, mean in self.average.mean.items()}

    def _empty_generators(self, saved: Saved) -> dict[str, Tensor]:
        """This rank's generators; a rank that there was none of goes on with those of rank 0."""
        rank = self.rank if f"rng.{self.rank}.{rng.CPU}" in saved.shapes else 0
        names = [name for name in saved.shapes if name.startswith(f"rng.{rank}.")]
        return {name: torch.empty(saved.shapes[name], dtype=torch.uint8) for name in names}


def model_files(model: nn.Module, tokenizer: SavesFiles | None, *, instruct: bool) -> dict[str, bytes]:
    """The small files with which a checkpoint becomes a model folder: config.json, and the tokenizer's if it is known.

    Empty for what is no language model; no tokenizer where only a part is trained, which becomes no folder by itself.
    `instruct`: it talks, and is to stop at the end of a turn.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, LlamaConfig):
        return {}
    if not all(param.requires_grad for param in model.parameters()):
        tokenizer = None
    bos, stops = (None, ()) if tokenizer is None else (tokenizer.bos, tuple(tokenizer.stop_ids))
    eos = stops if instruct else stops[:1]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if tokenizer is not None:
            tokenizer.save(folder)
            write_json(folder / "generation_config.json", generation_config(bos=bos, eos=eos, instruct=instruct))
        write_json(folder / "config.json", to_hf(config, "float32", bos=bos, eos=eos))
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
