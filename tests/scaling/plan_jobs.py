"""Small jobs that the tests of the planner share."""

from herd.llama.config import LlamaConfig, llama31_8b
from herd.scaling.plan.hardware import GPUS
from herd.scaling.plan.job import Job
from herd.scaling.plan.network import NETWORKS

SMALL = LlamaConfig(1024, 256, 6, 8, 4, 768, max_seq_len=4096)


def job(config: LlamaConfig | None = None, gpus: int = 8, rows: int = 64, seq: int = 8192, gpu: str = "h100") -> Job:
    """On so many GPUs of the paper's network, with steps of so many sequences."""
    return Job(config or llama31_8b(), gpus, GPUS[gpu], NETWORKS["roce"], seq, rows * seq)
