"""The shape of a Llama model and what it costs: sizes, parameters, tensors, FLOPs. Imports no torch.

Sources: paper table 3 and section 3.2; RoPE scaling and the feed-forward size rule from Meta's reference `model.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from herd.errors import SettingError

VOCABULARY = 128_256  # 128,000 BPE tokens and 256 special ones
# A config.json comes from strangers: what is larger than this is a mistake, and building it would take all memory.
_MOST_LAYERS, _LARGEST, _LONGEST = 1_000, 2**24, 2**31


def _require(holds: bool, message: str, where: str, mend: str = "") -> None:
    if not holds:
        raise SettingError(message, where=where, mend=mend)


@dataclass(frozen=True)
class RopeScaling:
    """The 3.1 stretch of rotary frequencies; the defaults are those of every 3.1 model."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        for name in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"):
            usable = 0 < getattr(self, name) <= _LONGEST  # no NaN, no infinity
            _require(usable, f"{name} must be positive and finite", f"rope_scaling.{name}")
        _require(
            self.low_freq_factor < self.high_freq_factor,
            "low_freq_factor must be smaller than high_freq_factor",
            "rope_scaling.low_freq_factor",
        )


@dataclass(frozen=True)
class LlamaConfig:
    """One model's shape. `dim` is the width of the residual stream, `ffn_dim` of the SwiGLU in between."""

    vocab_size: int
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    ffn_dim: int
    norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = RopeScaling()
    max_seq_len: int = 131_072
    tie_embeddings: bool = False

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim", "max_seq_len")
        for name in (*sizes, "norm_eps", "rope_theta"):
            value = getattr(self, name)
            _require(value > 0, f"{name} must be positive, not {str(value)[:30]}", name)
            most = {"n_layers": _MOST_LAYERS, "max_seq_len": _LONGEST}.get(name, _LARGEST if name in sizes else 1e15)
            _require(value <= most, f"{name} is {str(value)[:30]}; at most {most:,.0f} makes sense", name)
        _require(
            self.n_heads % self.n_kv_heads == 0,
            f"{self.n_heads} query heads cannot share {self.n_kv_heads} key/value heads evenly",
            "n_kv_heads",
            "choose n_kv_heads that divides n_heads",
        )
        _require(
            self.dim % self.n_heads == 0,
            f"dim {self.dim} cannot be split into {self.n_heads} heads",
            "dim",
            "choose a dim that is a multiple of n_heads",
        )
        _require(
            self.head_dim % 2 == 0,
            f"the head size dim / n_heads = {self.head_dim} is odd; rotary positions turn pairs",
            "n_heads",
            "choose n_heads so that dim / n_heads is even",
        )

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def kv_dim(self) -> int:
        return self.n_kv_heads * self.head_dim

    def layer_parameters(self) -> int:
        """One layer: q and o, k and v, gate, up and down, two norms."""
        attention = 2 * self.dim * self.dim + 2 * self.dim * self.kv_dim
        return attention + 3 * self.dim * self.ffn_dim + 2 * self.dim

    def embedding_parameters(self) -> int:
        """One embedding matrix; an untied model has two of them."""
        return self.vocab_size * self.dim

    def parameters(self) -> int:
        embeddings = self.embedding_parameters() * (1 if self.tie_embeddings else 2)
        return self.n_layers * self.layer_parameters() + embeddings + self.dim

    def tensors(self) -> int:
        """Named tensors in a checkpoint: nine a layer, the embeddings and the last norm."""
        return 9 * self.n_layers + (2 if self.tie_embeddings else 3)

    def flops_per_token(self, seq_len: int) -> float:
        """FLOPs of forward and backward for one trained token in sequences of `seq_len`.

        6 a parameter that multiplies (the input embedding only looks up; the output matrix counts once, tied or
        not), and for attention 12 * layers * dim * seq_len, halved because a causal token sees half on average.
        """
        multiplied = self.n_layers * self.layer_parameters() + self.embedding_parameters() + self.dim
        return 6.0 * multiplied + 12.0 * self.n_layers * self.dim * seq_len / 2

    def cache_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Bytes of keys and values that one token of context holds (bf16 by default)."""
        return 2 * self.n_layers * self.kv_dim * bytes_per_value


def ffn_size(dim: int, multiplier: float, multiple_of: int) -> int:
    """The feed-forward width rule of Meta's `model.py`: two thirds of 4 dim, stretched, rounded up."""
    stretched = int(multiplier * int(8 * dim / 3))
    return multiple_of * -(-stretched // multiple_of)


def llama31_8b() -> LlamaConfig:
    return LlamaConfig(VOCABULARY, 4096, 32, 32, 8, ffn_size(4096, 1.3, 1024))  # table 3: 14,336


def llama31_70b() -> LlamaConfig:
    return LlamaConfig(VOCABULARY, 8192, 80, 64, 8, ffn_size(8192, 1.3, 4096))  # table 3: 28,672


def llama31_405b() -> LlamaConfig:
    return LlamaConfig(VOCABULARY, 16384, 126, 128, 8, ffn_size(16384, 1.2, 4096))  # table 3: 53,248
