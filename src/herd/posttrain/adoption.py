"""Fine-tuning of an adopted model as one typed value: what `herd train` runs. No torch.

A recipe is a function in `recipes/adopt.py` that returns a complete `Adoption`; the model and the data are the command
line's. Defaults carry their source, "herd's choice" where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from herd.devices import check_name
from herd.errors import SettingError
from herd.generate.settings import EndpointSettings
from herd.posttrain.settings import DistilSettings
from herd.train.settings import Recompute, TrainSettings
from herd.weights.settings import LoraSettings

Objective = Literal["sft", "dpo", "reward", "distil"]


@dataclass(frozen=True)
class TeacherSettings:
    """Who teaches: a served model by its answers, or the model in `folder` (of one tokenizer) by its distribution."""

    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    max_tokens: int = 1024  # of one answer; one that is cut off there is left out
    temperature: float = 0.7
    top_p: float = 1.0
    system: str = ""  # put before prompts that have no system message; the student does not see it
    folder: str = ""
    logits: DistilSettings = field(default_factory=DistilSettings)

    def __post_init__(self) -> None:
        if self.folder and self.endpoint.url:
            raise SettingError("two teachers: a folder and a server", where="teacher", mend="name one of them")


@dataclass(frozen=True)
class PreferenceSettings:
    """Of DPO."""

    beta: float = 0.1  # paper 4.1.4
    nll_weight: float = 0.2  # paper 4.1.4


@dataclass(frozen=True)
class Adoption:
    """One fine-tuning: the objective, how long, through what adapter (none: every weight), over what base."""

    name: str
    about: str
    objective: Objective
    train: TrainSettings  # `steps` is the most there are; `max_epochs` cuts them
    max_epochs: float = 3.0
    adapter: LoraSettings | None = field(default_factory=LoraSettings)
    base: Literal["plain", "fp8", "int8"] = "plain"  # what the frozen matrices under an adapter are kept in
    recompute: Recompute = "nothing"  # gradient checkpointing: less memory, more compute, the same gradients
    recompute_every: int = 1  # of every so many layers
    held_out: float = 0.02  # share of the data that is not learnt but measures
    answers: Literal["all", "last"] = "all"  # which of a conversation's answers SFT and distillation learn
    preference: PreferenceSettings = field(default_factory=PreferenceSettings)
    teacher: TeacherSettings | None = None
    columns: Mapping[str, str] = field(default_factory=dict)  # our name of a column -> the dataset's
    merge: bool = True  # also write the model with the adapter folded in
    threads: int = 0  # 0 is every core
    device: str = "auto"  # devices.py; where it runs changes no hash

    def __post_init__(self) -> None:
        self._need(self.max_epochs > 0, "max_epochs", "more than 0")
        self._need(0 <= self.held_out < 1, "held_out", "a share in [0, 1)")
        self._need(self.recompute_every >= 1, "recompute_every", "at least 1")
        check_name(self.device)
        self._need(self.threads >= 0, "threads", "a count, or 0 for every core")
        if self.base != "plain" and self.adapter is None:
            raise SettingError(
                f"a base in {self.base} is frozen, and without an adapter nothing is left to learn",
                where="base",
                mend="keep the adapter, or set base to plain",
            )
        self._need(self.answers in ("all", "last"), "answers", "'all' or 'last'")
        if (self.objective == "distil") != (self.teacher is not None):
            raise SettingError("distil, and only distil, has a teacher", where="teacher")

    def _need(self, holds: bool, name: str, wanted: str) -> None:
        if not holds:
            raise SettingError(f"{name} is {getattr(self, name)!r} and should be {wanted}", where=name)
