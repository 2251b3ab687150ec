"""How a model and its batch are laid out over processes: one value, read from the command line, checked before a run.

    plan = parse_plan("dp=2,tp=2")
    plan.check(config, settings)                     # SettingError that names the degree, and what would fit
    plan.place(3)                                    # Place(pp=0, dp=1, cp=0, tp=1)

The axes are those of the paper (section 3.3.2), and so is their order, innermost first: tensor ranks talk most and are
neighbours, data ranks talk least. No torch here: the planner asks the same questions for processes that do not exist.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from herd.config import override
from herd.errors import SettingError
from herd.llama.config import LlamaConfig
from herd.train.parallel.schedule import balanced
from herd.train.settings import Recompute, TrainSettings

Axis = Literal["tp", "cp", "pp", "dp"]
ORDER: tuple[Axis, ...] = ("tp", "cp", "pp", "dp")  # innermost first: rank = tp + TP*(cp + CP*(pp + PP*dp))


@dataclass(frozen=True)
class Place:
    """Where a rank stands on each axis."""

    pp: int
    dp: int
    cp: int
    tp: int


@dataclass(frozen=True)
class ParallelPlan:
    """The number of processes along each axis, and how each is used. All ones is one process."""

    pp: int = 1  # pipeline: stages of layers
    dp: int = 1  # data: rows of a step
    cp: int = 1  # context: parts of each row
    tp: int = 1  # tensor: parts of each matrix, and of the sequence between them
    # Over data and context ranks: parameters, gradients and moments are sharded, parameters kept from forward to
    # backward ("keep", the paper's) or gathered again ("reshard"); "none" has them whole on every rank.
    shard: Literal["keep", "reshard", "none"] = "keep"
    virtual: int = 1  # stages of each pipeline rank; paper, section 3.3.2: interleaved
    consecutive: int = 0  # micro-batches of a stage in a row, the paper's N; 0: as many as there are pipeline ranks
    layers: tuple[int, ...] = ()  # of each stage; (): balanced, one fewer on the first and the last (paper)
    recompute: Recompute = "elementwise"  # no product: the paper trains 8K rows without checkpointing
    recompute_every: int = 1  # of so many layers one
    compile: bool = False  # torch.compile, a layer at a time
    precision: Literal["dtype", "fp8"] = "dtype"  # of the layers' products: the settings' dtype, or FP8 through torchao

    def __post_init__(self) -> None:
        for name in (*ORDER, "virtual", "recompute_every"):
            self._need(name, getattr(self, name) >= 1, "1 or more")
        self._need("consecutive", self.consecutive >= 0, "0 or more")
        self._need("virtual", self.virtual == 1 or self.pp > 1, "1 without pipeline ranks (pp)")
        for field in ("shard", "recompute", "precision"):
            choices = {"shard": ("keep", "reshard", "none"), "recompute": get_args(Recompute)}
            wanted = choices.get(field, ("dtype", "fp8"))
            self._need(field, getattr(self, field) in wanted, " or ".join(wanted))

    @property
    def world_size(self) -> int:
        return self.tp * self.cp * self.pp * self.dp

    @property
    def shards(self) -> int:
        """Over how many ranks each parameter is sharded, beside its tensor ranks."""
        return 1 if self.shard == "none" else self.dp * self.cp

    def place(self, rank: int) -> Place:
        """The coordinates of a rank; the rank number is mixed radix in `ORDER`."""
        found: dict[str, int] = {}
        for axis in ORDER:
            rank, found[axis] = divmod(rank, getattr(self, axis))
        return Place(**found)

    def rank(self, place: Place) -> int:
        """The inverse of `place`."""
        rank = 0
        for axis in reversed(ORDER):
            rank = rank * getattr(self, axis) + getattr(place, axis)
        return rank

    def stage_layers(self, n_layers: int) -> tuple[int, ...]:
        """Layers of each of the pp * virtual stages."""
        return balanced(n_layers, self.pp, self.virtual, self.layers)

    def check_world(self, world: int) -> None:
        """SettingError where this plan is not for `world` processes."""
        if world != self.world_size:
            raise SettingError(
                f"the plan {self} is for {self.world_size} processes, and there are {world}",
                where="plan",
                mend=f"start it with: torchrun --nproc-per-node {self.world_size} -m herd ...",
            )

    def check(self, config: LlamaConfig, settings: TrainSettings | None = None) -> None:
        """SettingError where this plan cannot run this model, on these batches."""
        self._need("precision", self.precision == "dtype" or self.tp == 1, "dtype with tensor ranks (tp)")
        self._divides("tp", config.n_kv_heads, "key/value heads")
        self._divides("tp", config.n_heads, "query heads")
        self._divides("tp", config.ffn_dim, "columns of the feed-forward matrices")
        if config.vocab_size <= (self.tp - 1) * -(-config.vocab_size // self.tp):
            raise SettingError(f"tp={self.tp} ranks cannot share a vocabulary of {config.vocab_size}", where="plan.tp")
        if self.pp > 1 or self.layers:
            self.stage_layers(config.n_layers)
        if settings is not None:
            self._check_batches(settings)

    def _check_batches(self, settings: TrainSettings) -> None:
        rows = settings.rows_per_step
        if self.dp > rows:
            raise SettingError(
                f"dp={self.dp} ranks have {rows} rows of a step among them",
                where="plan.dp",
                mend=f"give dp of at most {rows}, or a batch_tokens of at least {self.dp * settings.seq_len:,}",
            )
        if self.cp > 1 and settings.seq_len < 2 * self.cp * self.tp:
            raise SettingError(
                f"cp={self.cp} and tp={self.tp} cut rows of {settings.seq_len} tokens into {2 * self.cp * self.tp}",
                where="plan.cp",
                mend=f"give rows of at least {2 * self.cp * self.tp} tokens (seq_len), or fewer ranks",
            )

    def _divides(self, axis: Axis, whole: int, what: str) -> None:
        degree = getattr(self, axis)
        if whole % degree:
            fits = ", ".join(str(d) for d in range(1, whole + 1) if whole % d == 0 and d <= 64)
            raise SettingError(
                f"{axis}={degree} does not divide {whole} {what}", where=f"plan.{axis}", mend=f"{axis} can be {fits}"
            )

    def _need(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise SettingError(f"{name} is {getattr(self, name)!r} and should be {wanted}", where=f"plan.{name}")

    def __str__(self) -> str:
        """As it is written on the command line: what differs from one process."""
        fields = [(f.name, getattr(self, f.name), f.default) for f in dataclasses.fields(self)]
        said = [f"{name}={_plain(value)}" for name, value, default in fields if value != default]
        return ",".join(said) or "dp=1"


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_plan(text: str) -> ParallelPlan:
    """A plan from the command line: `dp=2,tp=2`, in any order, layers as `layers=3-5`; nothing is one process."""
    assignments = []
    for word in text.split(",") if text else ():
        name, equals, value = word.strip().partition("=")
        if not equals or not name or not value:
            raise SettingError(f"cannot read '{word}'", where="plan", mend="write AXIS=NUMBER, e.g. dp=2,tp=2")
        if name == "layers":
            value = f"[{value.replace('-', ',')}]"
        assignments.append(f"{name}={value}")
    return override(ParallelPlan(), assignments)
