"""R read by a state-space recurrence, C by attention: exact where tokens are predicted, linear in the length of R."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from megarc.attention import Cached, attend, attend_cached
from megarc.interval import Seen
from megarc.model.block_part import PartCost
from megarc.model.config import ModelConfig
from megarc.model.layers import ColumnLinear, Norm
from megarc.model.mixers.attention import Attention
from megarc.model.mixers.directions import Documents, directions
from megarc.model.mixers.ssm import both_ways, decay_rates, decays, each_head
from megarc.parallel import TensorParallel
from megarc.window import Window


class RecentStateSpace(Attention):
    """Attention's parameters, and a decay for each direction.

    Rows of R read each other as in ``ssm``, with queries and keys that are not rotated, and what they read is
    normalised a head. Rows of C attend to all rows before them. While decoding, keys and values are kept as in
    attention.
    """

    picks: ClassVar[bool] = False

    def __init__(self, config: ModelConfig, engine: str, layer: int, tensor: TensorParallel) -> None:
        super().__init__(config, engine, layer, tensor)
        self.rates = decay_rates(config.heads)[tensor.rank * self.heads :][: self.heads]
        self.decay = ColumnLinear(
            config.hidden, 2 * config.heads, "hidden", tensor, biased=True, own_type=True
        )
        self.recent_norm = Norm(self.head_dim, config.norm_epsilon, tensor, partial=tensor.size > 1)

    def forward(
        self,
        x: Tensor,
        seen: Seen,
        cache: Cached | None = None,
        positions: Tensor | None = None,
        read: slice | Tensor | None = None,
    ) -> Tensor:
        x = self.tensor.enter(x)
        rows = x.shape[1]
        q, k, v = self.queries_keys_values(x)
        turned_q, turned_k = self.turned(q, k, cache, positions)
        where = 0 if cache is not None and cache.length else directions(seen, rows)
        if isinstance(where, Documents):
            both = self._recent(x, q, k, v, where)
            if cache is None:
                attended = attend(turned_q, turned_k, v, seen, engine=self.layer_heads.engine)
            else:
                attended = cache.attend(self.layer, turned_q, turned_k, v, seen, self.layer_heads)
            return self.written(torch.where(where.inside[:, None, :, None], both, attended))
        causal = turned_q[:, :, where:]
        if cache is not None:
            attended = cache.attend(self.layer, causal, turned_k, v, where or seen, self.layer_heads)
        elif where:
            attended = attend_cached(causal, turned_k, v, where, engine=self.layer_heads.engine)
        else:
            attended = attend(causal, turned_k, v, seen, engine=self.layer_heads.engine)
        if where:
            recent = self._recent(x[:, :where], q[:, :, :where], k[:, :, :where], v[:, :, :where], where)
            attended = torch.cat([recent, attended], 2)
        elif cache is None:
            # Samples without R use all weights as well, for nothing: under ZeRO 3 every rank calls the same modules.
            recent = self._recent(x[:, :1], q[:, :, :1], k[:, :, :1], v[:, :, :1], 1)
            attended = torch.cat([attended[:, :, :1] + 0.0 * recent, attended[:, :, 1:]], 2)
        return self.written(attended)

    def _recent(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, where: int | Documents) -> Tensor:
        """What rows of R read, [batch, heads, rows, head_dim]."""
        wide = torch.promote_types(x.dtype, torch.float32)
        forward, backward = self.decay(x).to(wide).unflatten(2, (self.heads, 2)).permute(3, 0, 2, 1)
        forward, backward = decays(forward, self.rates), decays(backward, self.rates)
        k, v = each_head(k, self.heads).to(wide), each_head(v, self.heads).to(wide)
        q = q.to(wide) * self.head_dim**-0.5
        read, _ = both_ways(self.scan, q, k, v, forward, backward, torch.zeros_like(forward), where)
        return self.recent_norm(read.to(x.dtype))

    @staticmethod
    def cost(config: ModelConfig, window: Window) -> PartCost:
        whole = Attention.cost(config, window)
        heads, width, rows = config.heads, config.width_of_head, window.rows
        recent = directions(window.recent, rows)
        assert isinstance(recent, int)
        decay = 2 * heads * config.hidden
        seen = Window(0, rows, 1).pairs() - Window(0, recent, 1).pairs() if recent else window.pairs()
        return PartCost(
            matrices=whole.matrices + decay,
            gains=whole.gains + 2 * heads + width,
            matrix_flops=whole.matrix_flops + (2 * decay + 8 * heads * width**2) * recent,
            attention_flops=4 * heads * width * seen,
            full_square_flops=4 * heads * width * rows * (rows - recent),
        )
