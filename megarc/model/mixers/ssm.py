"""A state-space mixer: a gated linear recurrence, both ways over R and forward over C."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from megarc.attention import Cached, LayerCache
from megarc.interval import Seen
from megarc.model.block_part import PartCost, Split
from megarc.model.config import ModelConfig
from megarc.model.layers import ColumnLinear
from megarc.model.mixers.attention import Attention, KeyValue
from megarc.model.mixers.directions import Documents, directions
from megarc.model.mixers.gated_output import GatedOutput
from megarc.model.mixers.mixer import Mixer
from megarc.model.mixers.scan import Scan
from megarc.parallel import TensorParallel
from megarc.window import Window


class StateSpace(Mixer):
    """A matrix state a head, [head_dim, head_dim], with a scalar decay a row (Mamba-2's form, 2405.21060).

        S_i = a_i S_{i-1} + k_i v_i^T     forward over all rows; row i reads q_i S_i
        T_i = b_i T_{i+1} + k_i v_i^T     backward over R; row i of R reads b_i q_i T_{i+1} as well
                                          a row i of C reads g_i q_i T_0, the state at R's first row

    a, b and g are the row's own. A state decays by a rate that each head has (``decay_rates``) times softplus of a
    projection. What was read is normalised a head and gated (``GatedOutput``). There are no rotary positions: a decay
    tells near from far. Each tensor rank has some of the heads.
    """

    def __init__(self, config: ModelConfig, engine: str, layer: int, tensor: TensorParallel) -> None:
        super().__init__(config, engine, layer, tensor)
        config = config.model_copy(update={"attention_bias": "none"})
        self.tensor, self.layer, self.head_dim = tensor, layer, config.width_of_head
        self.heads = config.heads // tensor.size
        self.rates = decay_rates(config.heads)[tensor.rank * self.heads :][: self.heads]
        self.query = ColumnLinear(config.hidden, config.heads * self.head_dim, "hidden", tensor)
        self.key_value = KeyValue(config, tensor)
        self.decay = ColumnLinear(
            config.hidden, 3 * config.heads, "hidden", tensor, biased=True, own_type=True
        )
        self.output = GatedOutput(config, tensor)

    def forward(
        self,
        x: Tensor,
        seen: Seen,
        cache: Cached | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        x = self.tensor.enter(x)
        rows = x.shape[1]
        wide = torch.promote_types(x.dtype, torch.float32)
        q = self.query(x).unflatten(2, (self.heads, self.head_dim)).transpose(1, 2).to(wide)
        k, v = self.key_value(x)
        k, v = each_head(k, self.heads).to(wide), each_head(v, self.heads).to(wide)
        q = q * self.head_dim**-0.5
        # [batch, rows, heads * 3] -> [batch, heads, rows] each
        forward, backward, start = self.decay(x).to(wide).unflatten(2, (self.heads, 3)).permute(3, 0, 2, 1)
        forward, backward = decays(forward, self.rates), decays(backward, self.rates)
        before = None if cache is None else cache.recall(self.layer)
        if before is None:
            where = directions(seen, rows)
            mixed, states = both_ways(self.scan, q, k, v, forward, backward, start.sigmoid(), where)
        else:
            mixed, states = continued(self.scan, q, k, v, forward, start.sigmoid(), before)
        if cache is not None:
            cache.remember(self.layer, states, rows)
        return self.output(mixed.to(x.dtype), x)

    @staticmethod
    def cost(config: ModelConfig, window: Window) -> PartCost:
        heads, width, hidden = config.heads, config.width_of_head, config.hidden
        matrices = hidden * width * (heads + 2 * config.groups) + 3 * heads * hidden
        matrices += GatedOutput.elements(config)
        # A row adds k v^T to a state and reads one, 2 width^2 each; C reads the state at R's start, too.
        recent = directions(window.recent, window.rows)
        assert isinstance(recent, int)
        states = 4 * window.rows + 4 * recent + (2 * window.causal if recent else 0)
        return PartCost(
            matrices=matrices,
            gains=width + 3 * heads,
            matrix_flops=2 * matrices * window.rows + heads * width**2 * states,
        )

    @staticmethod
    def splits(config: ModelConfig) -> list[Split]:
        return Attention.splits(config)  # the same heads and groups

    @staticmethod
    def cache_shape(config: ModelConfig, ranks: int) -> LayerCache:
        state = (config.heads // ranks, config.width_of_head, config.width_of_head)
        return LayerCache(states=(state, state))


def both_ways(
    scan: Scan,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    forward: Tensor,
    backward: Tensor,
    start: Tensor,
    where: int | Documents,
) -> tuple[Tensor, list[Tensor]]:
    """What rows read that nothing precedes, and the states behind them: S at the last row, T at the first.

    Args:
        scan: what runs a recurrence.
        q: [batch, heads, rows, d]; k and v alike.
        forward: log a, [batch, heads, rows]; ``backward`` log b; ``start`` g.
        where: as ``directions`` gives it. With documents the states are of no use.
    """
    if isinstance(where, Documents):
        return _of_documents(scan, q, k, v, forward, backward, start, where)
    mixed, ahead = scan(q, k, v, forward)
    if not where:
        return mixed, [ahead, torch.zeros_like(ahead)]
    turned = [x[:, :, :where].flip(2) for x in (q, k, v, backward)]
    back, behind = scan(turned[0], turned[1], turned[2], turned[3], strict=True)
    causal = start[:, :, where:, None] * (q[:, :, where:] @ behind)
    return mixed + torch.cat([back.flip(2), causal], 2), [ahead, behind]


def continued(
    scan: Scan, q: Tensor, k: Tensor, v: Tensor, forward: Tensor, start: Tensor, before: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The same of rows of C that follow the states ``before``."""
    ahead, behind = before
    mixed, ahead = scan(q, k, v, forward, state=ahead)
    return mixed + start[..., None] * (q @ behind), [ahead, behind]


def _of_documents(
    scan: Scan,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    forward: Tensor,
    backward: Tensor,
    start: Tensor,
    where: Documents,
) -> tuple[Tensor, list[Tensor]]:
    mixed, ahead = scan(q, k, v, forward, where.first)
    inside = where.inside[:, None, :, None].to(q.dtype)  # [batch, 1, rows, 1]
    of_recent = k * inside
    turned = [x.flip(2) for x in (q, of_recent, v, backward)]
    back, _ = scan(turned[0], turned[1], turned[2], turned[3], where.last.flip(1), strict=True)
    # T at a document's first row, read by its C: what is left there of row j does not depend on the reader. So it is
    # a recurrence without decay of keys that are smaller by it; and what is left follows one with decay.
    ones = torch.ones_like(q[..., :1])
    begins = where.first[:, None, :, None] * ones
    left, _ = scan(ones, begins, ones, F.pad(backward, (1, -1)), where.first)
    at_start, behind = scan(q, of_recent * left, v, torch.zeros_like(forward), where.first)
    return mixed + inside * back.flip(2) + (1 - inside) * start[..., None] * at_start, [ahead, behind]


def decay_rates(heads: int) -> list[float]:
    """Of each head: with a projection that gives 0, head 0 forgets within 3 rows, the last one within 1,500."""
    return [2.0 ** -(1 + 9 * head / max(1, heads - 1)) for head in range(heads)]


def decays(projected: Tensor, rates: list[float]) -> Tensor:
    """The log of what a row leaves of the state, [batch, heads, rows]."""
    by_head = torch.tensor(rates, dtype=projected.dtype, device=projected.device)
    return -F.softplus(projected) * by_head[:, None]


def each_head(x: Tensor, heads: int) -> Tensor:
    """``x`` [batch, groups, rows, d] for every head of a group: [batch, heads, rows, d]."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)
