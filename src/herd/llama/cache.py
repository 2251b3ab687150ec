"""Keys and values of the past, one dense pair of tensors a layer; rows may have different lengths.

    cache = KVCache(config, batch=2, max_len=64)
    model(prompts_BT, cache=cache)              # prompts padded on the right
    cache.truncate(lengths_B)                   # forget the padding
    model(next_B1, cache=cache)                 # each row goes on at its own length

A slot past a row's length holds rubbish that no query sees: queries look at slots up to their own position only, and
each position is written before it is looked at.
Not here: pages, eviction, prefixes shared by reference (the serving engine's business).
"""

from __future__ import annotations

import torch
from torch import Tensor

from herd.errors import InputError
from herd.llama.config import LlamaConfig


class KVCache:
    """Room for `max_len` positions of `batch` rows: per layer, keys and values [B, G, max_len, K]."""

    def __init__(
        self,
        config: LlamaConfig,
        batch: int,
        max_len: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (batch, config.n_kv_heads, max_len, config.head_dim)
        # zeros, not empty: a rubbish NaN times an attention weight of zero would still be NaN
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.lengths_B = torch.zeros(batch, dtype=torch.int64, device=device)
        self.longest = 0  # the maximum of lengths_B, kept on the host so that a step needs no synchronisation
        self.max_len = max_len

    @property
    def batch(self) -> int:
        return self.lengths_B.shape[0]

    def next_positions(self, n_tokens: int) -> Tensor:
        """Where the next `n_tokens` of each row stand: its length and on, [B, T]."""
        return self.lengths_B[:, None] + torch.arange(n_tokens, device=self.lengths_B.device)

    def reserve(self, positions_BT: Tensor, *, given: bool) -> int:
        """Check that there is room for `positions_BT`; returns how many slots an attention has to look at."""
        longest = int(positions_BT.max()) + 1 if given else self.longest + positions_BT.shape[1]
        if longest > self.max_len:
            raise InputError(
                f"position {longest - 1} does not fit a cache of {self.max_len} positions",
                where="KVCache",
                mend="make the cache with a larger max_len, or stop the generation earlier",
            )
        return max(longest, self.longest)

    def write(self, layer: int, keys_BTGK: Tensor, values_BTGK: Tensor, positions_BT: Tensor) -> None:
        """Put each row's new keys and values at that row's own positions."""
        rows_B1 = torch.arange(self.batch, device=positions_BT.device)[:, None]
        self.keys[layer].transpose(1, 2)[rows_B1, positions_BT] = keys_BTGK
        self.values[layer].transpose(1, 2)[rows_B1, positions_BT] = values_BTGK

    def read(self, layer: int, slots: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `slots` positions of every row, views [B, S, G, K]."""
        return self.keys[layer][:, :, :slots].transpose(1, 2), self.values[layer][:, :, :slots].transpose(1, 2)

    def advance(self, positions_BT: Tensor, longest: int) -> None:
        """Called once a forward pass: every row now ends after its last position."""
        self.lengths_B = positions_BT[:, -1] + 1
        self.longest = longest

    def truncate(self, lengths_B: Tensor) -> None:
        """Forget everything at and past each row's length: padding after a prefill, rejected drafts."""
        self.longest = int(lengths_B.max()) if self.batch else 0  # before the move: lengths that the host has are free
        self.lengths_B = lengths_B.to(self.lengths_B)

    def select(self, rows: Tensor) -> None:
        """Keep only these rows (indices or a boolean mask, in their order): drop the finished ones."""
        rows = rows.to(self.lengths_B.device)
        for tensors in (self.keys, self.values):
            for layer, tensor in enumerate(tensors):  # one layer at a time: never two whole caches alive
                tensors[layer] = tensor[rows]
        self.truncate(self.lengths_B[rows])

    def repeat(self, n: int) -> None:
        """Each row n times, copies beside one another: one prefill shared by n candidates."""
        for tensors in (self.keys, self.values):
            for layer, tensor in enumerate(tensors):
                tensors[layer] = tensor.repeat_interleave(n, dim=0)
        self.lengths_B = self.lengths_B.repeat_interleave(n)
