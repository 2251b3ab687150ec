"""What a report shows, as one value: the road fills it in from artifacts, `render` turns it into a page.

Every section may be missing (None or empty): the page then says "not part of this run". Every measurement may be
missing too (None; NaN is read as None). Scores, shares and rates are fractions of 1, sizes are bytes, times are
seconds, losses are nats per token, learning rates are per step.

Saved as report.json by `save`, read back by `load`; unknown keys and wrong types are refused with their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from herd.files import read_json, write_json
from herd.report.claims import Claim
from herd.report.codec import decode, encode
from herd.report.data_posttraining import Fp8Check as Fp8Check
from herd.report.data_posttraining import Gate as Gate
from herd.report.data_posttraining import Round as Round
from herd.report.data_posttraining import Teaching as Teaching
from herd.report.data_posttraining import WorstToken as WorstToken
from herd.report.score import Count as Count
from herd.report.score import Number as Number
from herd.report.score import Score as Score


@dataclass(frozen=True)
class Machine:
    cpu: str = ""
    cores: Count = None
    memory_bytes: Count = None
    torch: str = ""
    accelerator: str = ""  # "" is the CPU alone


@dataclass(frozen=True)
class StageTime:
    name: str
    seconds: Number
    note: str = ""  # e.g. "found done"


@dataclass(frozen=True)
class RunFacts:
    """Section 1: where, when and how long."""

    date: str = ""
    machine: Machine = Machine()
    seconds: Number = None
    next_command: str = ""
    herd_version: str = ""
    git: str = ""
    recipe_path: str = ""
    stages: tuple[StageTime, ...] = ()


@dataclass(frozen=True)
class ModelCard:
    """One of the family, for the summary: what it is and what it scores on the whole suite."""

    name: str
    role: str = ""  # e.g. "flagship"
    parameters: Count = None
    tokens: Count = None  # trained on, pre-training
    bytes: Count = None  # on disk
    folder: str = ""
    score: Score | None = None


@dataclass(frozen=True)
class CurationStep:
    name: str
    documents_in: Count = None
    documents_out: Count = None
    tokens_out: Count = None  # estimated from characters, but for the last step
    removed: Mapping[str, int] = field(default_factory=dict)  # reason -> documents
    warning: str = ""  # e.g. "removed nothing"


@dataclass(frozen=True)
class RemovedDocument:
    id: str
    step: str
    reason: str
    text: str
    lang: str = ""
    source: str = ""


@dataclass(frozen=True)
class PlantedNoise:
    """Bad pages put in on purpose, and how many of them curation took out again."""

    kind: str
    planted: Count
    caught: Count
    recall: Score | None = None


@dataclass(frozen=True)
class MixShare:
    source: str
    lang: str
    documents: Count
    tokens: Count


@dataclass(frozen=True)
class Corpus:
    """Section 2."""

    steps: tuple[CurationStep, ...] = ()
    examples: tuple[RemovedDocument, ...] = ()
    warnings: tuple[str, ...] = ()
    planted: tuple[PlantedNoise, ...] = ()
    mix: tuple[MixShare, ...] = ()
    mix_notes: tuple[str, ...] = ()  # e.g. what share the user's own documents have


@dataclass(frozen=True)
class LossCurve:
    """One pre-training run: points over tokens seen; `rung` marks the small runs of the scaling ladder."""

    model: str
    rung: bool = False
    tokens: tuple[Number, ...] = ()
    loss: tuple[Number, ...] = ()
    learning_rate: tuple[Number, ...] = ()  # at the same points, or empty
    validation_tokens: tuple[Number, ...] = ()
    validation_loss: tuple[Number, ...] = ()
    parameters: Count = None
    tokens_per_second: Number = None
    seconds: Number = None


@dataclass(frozen=True)
class ScalingPoint:
    parameters: Number
    loss: Number
    tokens: Number = None


@dataclass(frozen=True)
class IsoFlopCurve:
    """Runs of one compute budget, the fitted curve through them (drawn as given) and its minimum."""

    flops: Number
    runs: tuple[ScalingPoint, ...] = ()
    fit: tuple[ScalingPoint, ...] = ()
    minimum: ScalingPoint | None = None


@dataclass(frozen=True)
class Scaling:
    """Section 4. `error` is |reached - predicted| / reached, `allowed` the most that the claim accepts."""

    curves: tuple[IsoFlopCurve, ...] = ()
    model: str = "flagship"
    flops: Number = None
    predicted: Number = None
    low: Number = None
    high: Number = None
    reached: Number = None
    error: Number = None
    allowed: Number = 0.05
    law: str = ""  # the fitted formula, as text
    refused: str = ""  # why no law could be fitted


@dataclass(frozen=True)
class ScoreCell:
    """A score of a model; capability "" is the average over capabilities, lang "" over languages."""

    model: str
    capability: str
    lang: str
    score: Score


@dataclass(frozen=True)
class Turn:
    role: str
    content: str


@dataclass(frozen=True)
class Reply:
    model: str
    text: str
    ok: bool | None = None
    reason: str = ""


@dataclass(frozen=True)
class Conversation:
    """A prompt, and what each model replied to it."""

    prompt: tuple[Turn, ...]
    replies: tuple[Reply, ...]
    capability: str = ""
    lang: str = ""


@dataclass(frozen=True)
class AnnouncementLine:
    """One claim of the announcement in our words; `holds` None is "not part of this run"."""

    claim: str
    command: str = ""
    measured: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class LineageNode:
    """An artifact; `inputs` are ids of other nodes."""

    id: str
    label: str
    kind: str = "stage"  # "documents" | "stage" | "model"
    hash: str = ""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportData:
    recipe: str
    run: RunFacts | None = None
    models: tuple[ModelCard, ...] = ()
    corpus: Corpus | None = None
    training: tuple[LossCurve, ...] = ()
    scaling: Scaling | None = None
    rounds: tuple[Round, ...] = ()
    teaching: Teaching | None = None
    fp8: Fp8Check | None = None
    scores: tuple[ScoreCell, ...] = ()
    talk_scores: tuple[ScoreCell, ...] = ()  # by turn of a conversation; no part of the suite or its average
    conversations: tuple[Conversation, ...] = ()
    conversations_note: str = ""  # how they were chosen
    announcement: tuple[AnnouncementLine, ...] = ()
    claims: tuple[Claim, ...] = ()
    lineage: tuple[LineageNode, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A value that any JSON reader takes: what is not finite is null."""
        encoded: dict[str, Any] = encode(self)
        return encoded

    @classmethod
    def from_json(cls, value: object, where: str = "report data") -> ReportData:
        """The inverse of `to_json`. Raises FormatError with the place of an unknown key or a wrong type."""
        return decode(cls, value, where)

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> ReportData:
        """Raises ArtifactError if the file is missing, FormatError if it is not a report."""
        return cls.from_json(read_json(path), str(path))
