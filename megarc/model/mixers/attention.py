"""Grouped-query attention with rotary positions."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from megarc.attention import Cached, LayerCache, LayerHeads, attend, attend_by_head, narrowed, of_rows
from megarc.interval import Seen
from megarc.model.block_part import PartCost, Split
from megarc.model.config import ModelConfig
from megarc.model.layers import ColumnLinear, HeadsNorm, Norm, Projection, RowLinear
from megarc.model.mixers.mixer import Mixer
from megarc.model.parameter_record import bias, matrix
from megarc.model.parametrization import query_scale
from megarc.model.rotary import Rotary
from megarc.parallel import RankRows, TensorParallel
from megarc.window import Window


class Attention(Mixer):
    """Grouped-query attention under the window's mask. Each tensor rank has some of the heads."""

    picks: ClassVar[bool] = True

    def __init__(self, config: ModelConfig, engine: str, layer: int, tensor: TensorParallel) -> None:
        super().__init__(config, engine, layer, tensor)
        self.tensor, self.layer, self.head_dim = tensor, layer, config.width_of_head
        self.heads = config.heads // tensor.size
        self.query_scale, self.rotary = query_scale(config), Rotary(config, layer)
        causal = min(max(0, config.causal_heads - tensor.rank * self.heads), self.heads)
        self.layer_heads = LayerHeads(engine, config.sliding_window, causal)
        width, biased = config.heads * self.head_dim, config.attention_bias != "none"
        self.query = ColumnLinear(config.hidden, width, "hidden", tensor, biased=biased)
        self.key_value = KeyValue(config, tensor)
        biased = config.attention_bias == "all"
        self.out = RowLinear(width, config.hidden, "residual", tensor, biased=biased)
        self.query_norm = _head_norm(config, config.heads, tensor)
        self.key_norm = _head_norm(config, config.groups, tensor)

    def forward(
        self,
        x: Tensor,
        seen: Seen,
        cache: Cached | None = None,
        positions: Tensor | None = None,
        read: slice | Tensor | None = None,
    ) -> Tensor:
        q, k, v = self.queries_keys_values(self.tensor.enter(x), read)
        q, k = self.turned(q, k, cache, positions, read)
        heads = self.layer_heads
        if cache is not None:
            return self.written(cache.attend(self.layer, q, k, v, seen, heads))
        rows = None
        if isinstance(seen, RankRows):
            rows = seen.row_numbers
            seen, (k, v) = seen.under(heads.sliding), seen.of_window(k, v)
        else:
            seen = narrowed(seen, heads.sliding, len(k), k.shape[2], k.device)
            if isinstance(read, slice):
                rows = torch.arange(k.shape[2], dtype=torch.int32, device=k.device)[read]
                seen = of_rows(seen, read, len(k), k.shape[2], k.device)
        return self.written(
            attend_by_head(q, k, v, seen, heads.causal, partial(attend, engine=heads.engine), rows)
        )

    def queries_keys_values(
        self, x: Tensor, read: slice | Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of all rows, queries of the rows ``read``: [batch, heads (or groups) of this rank, rows, head_dim] each."""
        asked = x if read is None else x[:, read]
        batch, rows, _ = asked.shape
        # [batch, rows, heads * head_dim] -> [batch, heads, rows, head_dim]
        q = self.query(asked).view(batch, rows, self.heads, self.head_dim).transpose(1, 2)
        k, v = self.key_value(x)
        q, k = self.query_norm(q), self.key_norm(k)
        return (q * self.query_scale if self.query_scale != 1.0 else q), k, v

    def turned(
        self,
        q: Tensor,
        k: Tensor,
        cache: Cached | None,
        positions: Tensor | None,
        read: slice | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys with their rotary positions."""
        first = 0 if cache is None else cache.length
        return self.rotary.both(q, k, first, positions, read, decoding=cache is not None)

    def written(self, mixed: Tensor) -> Tensor:
        """``mixed`` [batch, heads, rows, head_dim] -> what is added to the stream."""
        batch, _, rows, _ = mixed.shape
        return self.out(mixed.transpose(1, 2).reshape(batch, rows, -1))

    @staticmethod
    def cost(config: ModelConfig, window: Window) -> PartCost:
        heads, width = config.heads, config.width_of_head
        matrices = 2 * config.hidden * width * (heads + config.groups)  # queries and out, keys and values
        per_head = 2 if config.qk_norm_over == "head" else heads + config.groups
        gains = per_head * width if config.qk_norm else 0
        if config.attention_bias != "none":
            gains += (heads + 2 * config.groups) * width
        if config.attention_bias == "all":
            gains += config.hidden
        return PartCost(
            matrices=matrices,
            gains=gains,
            matrix_flops=2 * matrices * window.rows,
            attention_flops=window.attention_flops(heads, width, config.narrowing),
            full_square_flops=4 * heads * width * window.rows**2,
        )

    @staticmethod
    def splits(config: ModelConfig) -> list[Split]:
        return [
            Split("model.kv_heads", config.groups, or_shared=True),
            Split("model.heads", config.heads),
        ]

    @staticmethod
    def cache_shape(config: ModelConfig, ranks: int) -> LayerCache:
        return LayerCache(max(1, config.groups // ranks), config.width_of_head)


class KeyValue(Projection):
    """Keys above values, one matrix. Where there are fewer groups than tensor ranks, all hold it whole."""

    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__()
        self.tensor, self.groups, self.head_dim = tensor, config.groups, config.width_of_head
        rows = 2 * self.groups * self.head_dim
        split = 0 if self.groups >= tensor.size else None
        self.weight = matrix(rows, config.hidden, "hidden", tensor, split=split, parts=2)
        self.bias = bias(rows) if config.attention_bias != "none" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` [batch, rows, hidden] -> keys and values [batch, groups of this rank, rows, head_dim]."""
        batch, rows, hidden = x.shape
        weight = self.weight
        if self.groups < self.tensor.size:
            weight = self.tensor.shared(weight).view(2, self.groups, self.head_dim, hidden)[:, self._mine()]
        both = self.linear(x, weight.reshape(-1, hidden)).view(batch, rows, 2, -1, self.head_dim)
        if self.bias is not None:
            whole = self.tensor.shared(self.bias).view(2, self.groups, self.head_dim)
            both = both + whole[:, self._mine()]
        k, v = both.transpose(1, 3).unbind(2)
        return k, v

    def _mine(self) -> slice:
        """The groups of this rank, of all."""
        first = self.tensor.rank * self.groups // self.tensor.size
        return slice(first, first + max(1, self.groups // self.tensor.size))


def _head_norm(config: ModelConfig, heads: int, tensor: TensorParallel) -> nn.Module:
    """What normalises so many heads' queries or keys."""
    if not config.qk_norm:
        return nn.Identity()
    if config.qk_norm_over == "all":
        return HeadsNorm(heads, config.width_of_head, config.norm_epsilon, tensor)
    return Norm(config.width_of_head, config.norm_epsilon, tensor, partial=tensor.size > 1)
