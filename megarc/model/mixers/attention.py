"""Grouped-query attention with rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from megarc.attention import Cache, attend, attend_cached
from megarc.interval import Intervals, Seen
from megarc.model.block_part import PartCost, Split
from megarc.model.config import ModelConfig
from megarc.model.layers import ColumnLinear, Norm, Projection, RowLinear
from megarc.model.mixers.mixer import Mixer
from megarc.model.parameter_record import matrix
from megarc.parallel import TensorParallel
from megarc.window import Window


class Attention(Mixer):
    """Grouped-query attention under the window's mask. Each tensor rank has some of the heads."""

    def __init__(self, config: ModelConfig, engine: str, layer: int, tensor: TensorParallel) -> None:
        super().__init__(config, engine, layer, tensor)
        self.tensor, self.engine, self.layer, self.head_dim = tensor, engine, layer, config.width_of_head
        self.heads = config.heads // tensor.size
        self.rope_base = config.rope_base if config.learned_positions is None else None
        partial = tensor.size > 1
        self.query = ColumnLinear(config.hidden, config.heads * self.head_dim, "hidden", tensor)
        self.key_value = KeyValue(config, tensor)
        self.out = RowLinear(config.heads * self.head_dim, config.hidden, "residual", tensor)
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()
        if config.qk_norm:
            self.query_norm = Norm(self.head_dim, config.norm_epsilon, tensor, partial)
            self.key_norm = Norm(self.head_dim, config.norm_epsilon, tensor, partial)

    def forward(
        self,
        x: Tensor,
        seen: Seen,
        cache: Cache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        x = self.tensor.enter(x)
        batch, rows, _ = x.shape
        # [batch, rows, heads * head_dim] -> [batch, heads, rows, head_dim]
        q = self.query(x).view(batch, rows, self.heads, self.head_dim).transpose(1, 2)
        k, v = self.key_value(x)
        q, k = self.query_norm(q), self.key_norm(k)
        first = 0 if cache is None else cache.length
        if self.rope_base is not None:
            q = rotate(q, first, self.rope_base, positions)
            k = rotate(k, first, self.rope_base, positions)
        if cache is None:
            mixed = attend(q, k, v, seen, engine=self.engine)
        else:
            k, v = cache.append(self.layer, k, v)
            mixed = attend_cached(
                q, k, v, seen if first == 0 or isinstance(seen, Intervals) else 0, engine=self.engine
            )
        return self.out(mixed.transpose(1, 2).reshape(batch, rows, -1))

    @staticmethod
    def cost(config: ModelConfig, window: Window) -> PartCost:
        heads, width = config.heads, config.width_of_head
        matrices = 2 * config.hidden * width * (heads + config.groups)  # queries and out, keys and values
        return PartCost(
            matrices=matrices,
            gains=2 * width if config.qk_norm else 0,
            matrix_flops=2 * matrices * window.rows,
            attention_flops=window.attention_flops(heads, width),
            full_square_flops=4 * heads * width * window.rows**2,
        )

    @staticmethod
    def splits(config: ModelConfig) -> list[Split]:
        return [
            Split("model.kv_heads", config.groups, or_shared=True),
            Split("model.heads", config.heads),
        ]

    @staticmethod
    def cache(
        config: ModelConfig, batch: int, rows: int, dtype: torch.dtype, device: torch.device | str
    ) -> Cache:
        return Cache(config.layers, batch, config.groups, rows, config.width_of_head, dtype, device)


class KeyValue(Projection):
    """Keys above values, one matrix. Where there are fewer groups than tensor ranks, all hold it whole."""

    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__()
        self.tensor, self.groups, self.head_dim = tensor, config.groups, config.width_of_head
        rows = 2 * self.groups * self.head_dim
        split = 0 if self.groups >= tensor.size else None
        self.weight = matrix(rows, config.hidden, "hidden", tensor, split=split, parts=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` [batch, rows, hidden] -> keys and values [batch, groups of this rank, rows, head_dim]."""
        batch, rows, hidden = x.shape
        weight = self.weight
        if self.groups < self.tensor.size:
            mine = self.tensor.rank * self.groups // self.tensor.size
            weight = self.tensor.shared(weight).view(2, self.groups, self.head_dim, hidden)[:, mine]
        both = self.linear(x, weight.reshape(-1, hidden)).view(batch, rows, 2, -1, self.head_dim)
        k, v = both.transpose(1, 3).unbind(2)
        return k, v


def rotate(x: Tensor, first: int, base: float, positions: Tensor | None = None) -> Tensor:
    """Rotary positions (Su et al. 2021, 2104.09864) of rows ``first ..``, or of ``positions`` [batch, rows].

    ``x`` is [batch, heads, rows, head_dim]. Halves are paired (i, i + d/2). Angles
    are float32 whatever ``x`` is: in bf16 neighbouring rows would fall together.
    """
    half = x.shape[-1] // 2
    if positions is None:
        rows = torch.arange(first, first + x.shape[-2], device=x.device, dtype=torch.float32)
    else:
        rows = positions[:, None].float()  # [batch, 1, rows]: the same for all heads
    wave = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = rows[..., None] * wave  # [(batch, 1,) rows, head_dim / 2]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)
