"""How large the embedded world is and what is written about it. No figure here is published: all are herd's choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from herd.errors import SettingError

LANGUAGES = ("en", "de", "fr", "it", "pt", "hi", "es", "th")
CAPABILITIES = ("knowledge", "steerability", "math", "tool_use", "translation", "code", "long_context")
TURNS = ("turn_1", "turn_2", "turn_3")  # of the probe of conversations: one held-out question at each place
FOLLOW_UP = "follow_up"  # a question that leans on the turns before
DOCUMENT_KINDS = (
    "almanac",
    "quiz",
    "dictionary",
    "parallel",
    "story",
    "sums",
    "problems",
    "code",
    "register",
    "styles",
    "calls",
)

MOST_CONVERSATIONS = 10**7


def _documents() -> Mapping[str, int]:
    return {
        "almanac": 1300,
        "quiz": 1000,
        "dictionary": 200,
        "parallel": 2200,
        "story": 100,
        "sums": 700,
        "problems": 1400,
        "code": 800,
        "register": 1600,
        "styles": 1500,
        "calls": 800,
    }


@dataclass(frozen=True)
class WorldSettings:
    """Size of the world: `towns` at most 24, numbers of sums up to `largest_operand`."""

    seed: int = 31
    towns: int = 16
    largest_operand: int = 10
    held_out: float = 0.12  # share of all questions that no document and no dialogue ever shows

    def __post_init__(self) -> None:
        if not 4 <= self.towns <= 24:
            raise SettingError("a world has 4 to 24 towns", where="towns")
        if not 0 < self.held_out < 0.5:
            raise SettingError("held_out is a share between 0 and 0.5", where="held_out")


@dataclass(frozen=True)
class PaddockSettings:
    """What is written: documents by kind, seed dialogues and prompts and held-out tasks by capability."""

    world: WorldSettings = field(default_factory=WorldSettings)
    documents: Mapping[str, int] = field(default_factory=_documents)
    dialogues_per_capability: int = 300  # the seed dialogues, the place of human annotation in the paper
    prompts_per_capability: int = 900  # training prompts with a verifier: candidates are drawn for these
    held_out_per_capability: int = 120
    conversations: int = 450  # seed dialogues of two and three turns
    conversation_prompts: int = 600  # prompts with right earlier turns in them
    conversation_probe: int = 80  # held-out questions asked alone, second and third, and as many follow-ups
    noise_per_kind: int = 150  # planted pages of each bad kind; curation is measured by them

    def __post_init__(self) -> None:
        wrong = [kind for kind in self.documents if kind not in DOCUMENT_KINDS]
        if wrong:
            raise SettingError(
                f"'{wrong[0]}' is not a kind of document", mend="there are: " + ", ".join(DOCUMENT_KINDS)
            )
        for name in ("conversations", "conversation_prompts", "conversation_probe"):
            if not 0 <= getattr(self, name) <= MOST_CONVERSATIONS:
                raise SettingError(f"{name} is a count of 0 (none) to {MOST_CONVERSATIONS:,}", where=name)
