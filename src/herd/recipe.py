"""A whole herd as one typed value: from documents to a post-trained, distilled, quantised and evaluated family.

A recipe is a Python function in `recipes/` that returns a complete `Recipe`; `herd raise` resolves it, saves it beside
the outputs, and the saved file can be raised again. Everything here is frozen and strict (config.py); what was never
published about the real system is a setting, and its comment says who chose the value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from herd.config import need
from herd.corpus.settings import CurateSettings, ReadSettings
from herd.devices import check_name
from herd.errors import SettingError
from herd.hub.settings import HubDataset
from herd.llama.config import LlamaConfig, RopeScaling
from herd.paddock.settings import PaddockSettings
from herd.posttrain.settings import RoundSettings, TeachSettings
from herd.quantize.settings import Fp8Policy
from herd.scaling.settings import FitSettings
from herd.train.phases import ContextGates, MixChange
from herd.train.settings import TrainSettings, prolongable

SMALLEST_VOCABULARY = 512  # what text/tokenizer.py needs; a test holds them equal
LARGEST_VOCABULARY = 2**20
MOST_TOKENS = 10**15  # sixty times the paper's 15.6T
MOST_THREADS = 1024
MOST_ROWS = 10**7  # of a kind that the embedded world writes
PLAIN_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class DocumentSettings:
    """Where documents come from. `user` is what `--documents` names; it is read, never copied."""

    user: str = ""
    read: ReadSettings = field(default_factory=ReadSettings)
    stdlib_modules: int = 60  # of Python's own documentation and source; 0 leaves it out
    paddock: PaddockSettings | None = field(default_factory=PaddockSettings)
    hub: tuple[HubDataset, ...] = ()  # datasets of the Hugging Face Hub

    def __post_init__(self) -> None:
        need(self, "stdlib_modules", self.stdlib_modules >= 0, "0 (none) or more")
        if self.paddock:
            for name in ("dialogues_per_capability", "prompts_per_capability", "held_out_per_capability"):
                need(self.paddock, name, 1 <= getattr(self.paddock, name) <= MOST_ROWS, f"1 to {MOST_ROWS:,}")
            noise, counts = self.paddock.noise_per_kind, self.paddock.documents.values()
            need(self.paddock, "noise_per_kind", 0 <= noise <= MOST_ROWS, f"0 (none) to {MOST_ROWS:,}")
            fit = all(0 <= count <= MOST_ROWS for count in counts)
            need(self.paddock, "documents", fit, f"counts of 0 to {MOST_ROWS:,}")


@dataclass(frozen=True)
class TokenizerSettings:
    """`released`: a folder or file with the released vocabulary; empty trains one of `vocab_size` on the corpus."""

    vocab_size: int = 4096  # special tokens included
    sample_characters: int = 8_000_000  # of the corpus, that merges are learnt from
    released: str = ""

    def __post_init__(self) -> None:
        room = f"{SMALLEST_VOCABULARY} (256 bytes and 256 special tokens) to {LARGEST_VOCABULARY:,}"
        need(self, "vocab_size", SMALLEST_VOCABULARY <= self.vocab_size <= LARGEST_VOCABULARY, room)
        need(self, "sample_characters", self.sample_characters >= 1, "at least 1")


@dataclass(frozen=True)
class MixSettings:
    """Share of each source in pre-training, by tokens; see road/mixing.py for sources that are not named here."""

    weights: Mapping[str, float] = field(
        default_factory=lambda: {"paddock": 0.85, "stdlib-docs": 0.08, "stdlib-code": 0.07}
    )
    other: float = 0.2  # of all sources without a name here together, before all weights are scaled to sum 1
    tokens: int = 1_500_000  # of one pass; training goes around again when it needs more
    validation: float = 0.05  # share of documents that no model trains on
    piece_characters: int = 0  # cut longer documents at line ends; 0 leaves them whole

    def __post_init__(self) -> None:
        need(self, "weights", all(0 <= weight <= 1e9 for weight in self.weights.values()), "weights of 0 to 1e9")
        need(self, "other", 0 <= self.other <= 1e9, "0 (left out) to 1e9")
        need(self, "tokens", 1 <= self.tokens <= MOST_TOKENS, f"between 1 and {MOST_TOKENS:.0e}")
        need(
            self, "validation", 0 < self.validation < 1, "a share above 0 and below 1: each training is measured on it"
        )
        need(self, "piece_characters", self.piece_characters >= 0, "0 (whole) or more")


@dataclass(frozen=True)
class Shape:
    """A model's shape without its vocabulary, which is the tokenizer's."""

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    ffn_dim: int
    tie_embeddings: bool = False
    max_seq_len: int = 131_072
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = field(default_factory=RopeScaling)

    def config(self, vocab_size: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=vocab_size,
            dim=self.dim,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            ffn_dim=self.ffn_dim,
            tie_embeddings=self.tie_embeddings,
            max_seq_len=self.max_seq_len,
            rope_theta=self.rope_theta,
            rope_scaling=self.rope_scaling,
        )


@dataclass(frozen=True)
class ModelRecipe:
    """One model of the family. `pretrain` are phases, each from where the one before ended; `mixes` change what is read
    on the way, at whatever phase; `gates` say when a long-context phase is done."""

    shape: Shape
    pretrain: tuple[TrainSettings, ...]
    seed: int = 0
    init_std: float = 0.02  # of the random start; never published, herd's choice
    mixes: tuple[MixChange, ...] = ()  # before the first, `mix` of the recipe holds
    gates: ContextGates | None = None

    def __post_init__(self) -> None:
        if not self.pretrain:
            raise SettingError("a model needs one phase of pre-training at least", where="pretrain")
        need(self, "init_std", self.init_std > 0, "above 0")
        longest = max(phase.seq_len for phase in self.pretrain)
        if longest > self.shape.max_seq_len:
            raise SettingError(
                f"a phase trains on {longest} tokens, the shape allows {self.shape.max_seq_len}", where="pretrain"
            )
        tokens = [change.tokens for change in self.mixes]
        need(self, "mixes", tokens == sorted(set(tokens)), "changes at ascending tokens")
        self._check_gates()

    def _check_gates(self) -> None:
        if not self.gates:
            return
        if self.pretrain[0].seq_len > self.gates.short_context:
            raise SettingError(
                f"the first phase's rows of {self.pretrain[0].seq_len} tokens are longer than short_context"
                f" ({self.gates.short_context}): there is nothing to recover to",
                where="gates.short_context",
                mend="begin with a phase of short rows, or set gates to null",
            )
        for number, phase in enumerate(self.pretrain):
            gated = self.gates.holds_for(phase.seq_len, phase.anneal_steps)
            if gated and not prolongable(phase):
                raise SettingError(
                    "a long-context phase may be prolonged, and its rates depend on its length",
                    where=f"pretrain.{number}",
                    mend="give it schedule=constant or cosine_steps, and keep its checkpoints",
                )

    @property
    def main_phase(self) -> TrainSettings:
        """The phase that reads most: what the model's training is like."""
        return max(self.pretrain, key=lambda phase: phase.steps * phase.batch_tokens)

    @property
    def annealed(self) -> float:
        """The share of all tokens that is read while annealing."""
        return sum(phase.anneal_steps * phase.batch_tokens for phase in self.pretrain) / self.tokens()

    def tokens(self) -> int:
        return sum(phase.steps * phase.batch_tokens for phase in self.pretrain)

    def flops(self, vocab_size: int) -> float:
        config = self.shape.config(vocab_size)
        return sum(p.steps * p.batch_tokens * config.flops_per_token(p.seq_len) for p in self.pretrain)


@dataclass(frozen=True)
class LadderRecipe:
    """The small runs that predict the flagship: shares of its compute, and sizes around the one each should suit."""

    budgets: tuple[float, ...] = (1 / 48, 1 / 24, 1 / 12)
    spread: tuple[float, ...] = (0.5, 1.0, 2.0)
    min_steps: int = 30
    size_exponent: float = 1 - 0.537  # paper, figure 3: tokens grow with C^0.537
    batch_exponent: float = 0.374  # paper, section 3.2.1: 250K tokens at 6e18 FLOPs to 4M at 1e22
    lr_exponent: float = -0.116  # paper, section 3.2.1: 4e-4 at 40M parameters to 2e-4 at 16B
    fit: FitSettings = field(default_factory=FitSettings)
    allowed_error: float = 0.05  # of the predicted loss, for the claim to hold

    def __post_init__(self) -> None:
        need(self, "allowed_error", self.allowed_error > 0, "above 0")


@dataclass(frozen=True)
class PosttrainRecipe:
    """The flagship's rounds. `start` is the SFT on seed dialogues that makes the first policy."""

    start: TrainSettings
    rounds: tuple[RoundSettings, ...]


@dataclass(frozen=True)
class SmallRecipe:
    """The small model: post-trained with the flagship's answers and, for the comparison, without them."""

    model: ModelRecipe
    start: TrainSettings
    teach: TeachSettings


@dataclass(frozen=True)
class SuiteSettings:
    """How suites are asked: tokens of a reply, and replies that are drawn at once."""

    max_tokens: int = 64
    batch_size: int = 256

    def __post_init__(self) -> None:
        need(self, "max_tokens", 1 <= self.max_tokens <= 2**20, "between 1 and 2^20")
        need(self, "batch_size", 1 <= self.batch_size <= 2**16, "between 1 and 2^16")


@dataclass(frozen=True)
class Recipe:
    name: str
    about: str
    flagship: ModelRecipe
    small: SmallRecipe | None
    posttrain: PosttrainRecipe | None
    documents: DocumentSettings = field(default_factory=DocumentSettings)
    curate: CurateSettings = field(default_factory=CurateSettings)
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    mix: MixSettings = field(default_factory=MixSettings)
    streams: Mapping[str, str] = field(default_factory=dict)  # source -> address of token shards that are trained on
    ladder: LadderRecipe | None = field(default_factory=LadderRecipe)
    quantize: Fp8Policy | None = field(default_factory=Fp8Policy)
    suite: SuiteSettings = field(default_factory=SuiteSettings)
    threads: int = 0  # of the run; 0 is every core
    device: str = "auto"  # devices.py: where models train and answer; where it runs changes no hash
    at_once: int = 1  # stages that need not one another run so many side by side, each with its share of the threads
    needs: str = ""  # what this recipe takes that a laptop does not have; said by --dry-run and refused otherwise

    def models(self) -> list[ModelRecipe]:
        """The models of the family that are pre-trained."""
        return [self.flagship, *([self.small.model] if self.small else [])]

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= MOST_THREADS:
            mend = f"give a count up to {MOST_THREADS}, or 0 for every core"
            raise SettingError(f"threads is {self.threads}", where="threads", mend=mend)
        check_name(self.device)
        if self.at_once < 1:
            raise SettingError(f"at_once is {self.at_once}", where="at_once", mend="give a count of 1 or more")
        if not PLAIN_NAME.fullmatch(self.name):
            mend = "letters, digits, '-', '_' and '.', a letter or digit first: the run's folder is named after it"
            raise SettingError(f"'{self.name}' cannot be the name of a recipe", where="name", mend=mend)
        layers, fp8 = self.flagship.shape.n_layers, self.quantize
        if fp8 and not fp8.names(layers):
            raise SettingError(
                f"FP8 keeps the first {fp8.keep_first} and the last {fp8.keep_last} layers as they are: "
                f"a flagship of {layers} has none to quantise",
                where="quantize",
                mend="set quantize to null, or give the flagship more layers",
            )
        paddock = self.documents.paddock
        if (self.posttrain or self.small) and paddock is None and not self.needs:
            raise SettingError(
                "post-training needs prompts with verifiers, and this recipe has no paddock",
                where="documents.paddock",
                mend="set documents.paddock, or posttrain and small to null",
            )
