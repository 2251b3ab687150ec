"""What is asked of the planner (`Job`), and one way of doing it (`Way`)."""

from __future__ import annotations

from dataclasses import dataclass

from herd.config import need
from herd.errors import SettingError
from herd.llama.config import LlamaConfig
from herd.scaling.plan.hardware import Gpu
from herd.scaling.plan.network import Fabric, Group, Network
from herd.train.parallel.plan import ParallelPlan
from herd.train.parallel.schedule import Schedule

_RUNS = 4  # of consecutive micro-batches: warming up takes at most two of them, as does draining


@dataclass(frozen=True)
class Software:
    """What a trainer does that no plan of herd's says, and that published rows differ in.

    attention   a kernel of the GPU's; "": its best
    fp8_gather  parameters in FP8 cross the network in FP8
    async_tp    products begin on the parts of their operands that have arrived
    ring        context ranks as in torch of 2024 (context.py), not by gathering once
    selective   backward makes every second product again (torchtitan's selective checkpointing)
    """

    attention: str = ""
    fp8_gather: bool = False
    async_tp: bool = False
    ring: bool = False
    selective: bool = False


@dataclass(frozen=True)
class Job:
    """A model, a machine and a batch. The defaults are the paper's for most of 405B's run (section 3.4.1)."""

    config: LlamaConfig
    gpus: int
    gpu: Gpu
    network: Network
    seq_len: int = 8192
    batch_tokens: int = 16_777_216
    tokens: float = 15.6e12
    software: Software = Software()

    def __post_init__(self) -> None:
        for name in ("gpus", "seq_len", "batch_tokens", "tokens"):
            need(self, name, getattr(self, name) >= 1, "at least 1")
        longest, whole = self.config.max_seq_len, self.batch_tokens % self.seq_len == 0
        need(self, "seq_len", self.seq_len <= longest, f"at most {longest:,}, the model's")
        need(self, "batch_tokens", whole, f"a multiple of seq_len ({self.seq_len:,})")
        kernel = self.software.attention
        if kernel and kernel not in self.gpu.attention:
            raise SettingError(
                f"'{kernel}' is no attention kernel of {self.gpu.name}",
                where="attention",
                mend="there are: " + ", ".join(self.gpu.attention),
            )

    @property
    def fabric(self) -> Fabric:
        return Fabric(self.gpu, self.network)

    @property
    def rows(self) -> int:
        """Sequences of a step."""
        return self.batch_tokens // self.seq_len

    @property
    def flops_per_step(self) -> float:
        return self.batch_tokens * self.config.flops_per_token(self.seq_len)

    @property
    def steps(self) -> int:
        return -(-int(self.tokens) // self.batch_tokens)


@dataclass(frozen=True)
class Way:
    """A layout, and the sequences of a micro-batch."""

    plan: ParallelPlan
    rows: int = 1

    @property
    def fp8(self) -> bool:
        """Layers' products in FP8 with scales made on the fly (tensor-wise); never the output matrix."""
        return self.plan.precision == "fp8"

    def microbatches(self, job: Job) -> int:
        """Of a step, for each data-parallel rank."""
        return job.rows // (self.plan.dp * self.rows)

    def schedule(self, job: Job) -> Schedule:
        """The pipeline's; of very many micro-batches only as many runs as it takes to see all that can happen."""
        plan, count = self.plan, self.microbatches(job)
        run = plan.consecutive or plan.pp
        if count > _RUNS * run:
            count = _RUNS * run + count % run
        return Schedule(plan.pp, count, plan.virtual, plan.consecutive)

    def tokens(self, job: Job) -> int:
        """Of a micro-batch, on each context-parallel rank."""
        return self.rows * job.seq_len // self.plan.cp

    # The order of ranks, innermost first: tp, cp, pp, dp (train/parallel/plan.py).

    @property
    def tensor(self) -> Group:
        return Group(self.plan.tp, 1, self.plan.world_size // self.plan.tp)

    @property
    def context(self) -> Group:
        return Group(self.plan.cp, self.plan.tp, self.plan.world_size // self.plan.cp)

    @property
    def pipeline_stride(self) -> int:
        return self.plan.tp * self.plan.cp

    @property
    def sharing(self) -> Group:
        """The ranks that hold the same parameters: data and context ranks together, one ring through all of them.

        It goes through the context ranks of a replica before it leaves it, so its first members are `tp` apart and
        the replicas that it passes lie as far from each other as they are large.
        """
        plan = self.plan
        if plan.dp == 1:
            return self.context
        size, replica = plan.dp * plan.cp, plan.tp * plan.cp * plan.pp
        return Group(size, max(plan.tp, replica // plan.cp), plan.tp * plan.pp)
