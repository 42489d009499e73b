"""Token-choice experts, each a SwiGLU; no row is dropped."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from megarc.model.block_part import PartCost, Split
from megarc.model.config import ModelConfig
from megarc.model.feed_forward.experts.dispatch import Dispatch
from megarc.model.feed_forward.experts.grouped_matmul import grouped_matmul
from megarc.model.feed_forward.experts.router import Router
from megarc.model.feed_forward.feed_forward import FeedForward
from megarc.model.layers import ColumnLinear, RowLinear
from megarc.parallel import TensorParallel
from megarc.window import Window


class Experts(FeedForward):
    """``sum_e w_e down_e(silu(gate_e(x)) * up_e(x))`` over a row's experts, and the same of shared ones with w = 1.

    The matrices of all experts are one parameter each, one above the other: gate and up of expert 0, of expert 1, ..;
    so records, checkpoints, Muon and tensor ranks need nothing else. Each tensor rank has some of every expert's inner
    width, chooses for all rows, and so makes a summand of every row.
    """

    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__(config, tensor)
        assert config.experts is not None
        count, width, hidden = config.experts.count, config.width_of_expert, config.hidden
        self.tensor = tensor
        self.router = Router(config, tensor)
        self.gate_up = _GateUp(count, hidden, width, tensor)
        self.down = _Down(count, width, hidden, tensor)
        shared = config.experts.shared * width
        self.shared_gate_up = ColumnLinear(hidden, 2 * shared, "hidden", tensor, parts=2) if shared else None
        self.shared_down = _Summand(shared, hidden, "residual", tensor) if shared else None

    def forward(self, x: Tensor, kept: int | None = None) -> Tensor:
        assert kept is None, "an expert has one width"
        x = self.tensor.enter(x)
        chosen, weights, counts = self.router(x)
        dispatch = Dispatch.of(chosen)
        rows = dispatch.spread(x.flatten(0, 1))
        sorted_weights = weights.flatten().index_select(0, dispatch.order)[:, None].to(x.dtype)
        y = dispatch.collect(self._routed(rows, sorted_weights, counts)).view_as(x)
        if self.shared_gate_up is not None and self.shared_down is not None:
            gate, up = self.shared_gate_up(x).chunk(2, dim=-1)
            y = y + self.shared_down(F.silu(gate) * up)
        return self.tensor.leave(y)

    def _routed(self, rows: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
        """``rows`` [rows, hidden], ``weights`` [rows, 1], sorted by expert -> what the experts make of them."""
        if self.tensor.expert.size == 1:
            return self._own(rows, weights, counts)
        exchange = self.tensor.exchange(counts, len(rows))
        # What came is sorted by rank, then by expert.
        ranks, own = exchange.received.shape
        experts = torch.arange(own, device=rows.device).repeat(ranks)
        experts = experts.repeat_interleave(exchange.received.flatten(), output_size=exchange.came)
        by_expert = Dispatch.of(experts[:, None])
        came = by_expert.spread(exchange.there(rows))
        made = self._own(came, by_expert.spread(exchange.there(weights)), exchange.received.sum(0))
        return exchange.back(by_expert.collect(made))

    def _own(self, rows: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
        """The same by this rank's experts, of rows that are here."""
        gate, up = self.gate_up(rows, counts).chunk(2, dim=-1)
        # Weights are applied to the inner rows, of which a tensor rank has few, and not to what comes out.
        return self.down(F.silu(gate) * up * weights, counts)

    @staticmethod
    def cost(config: ModelConfig, window: Window) -> PartCost:
        """FLOPs of the experts that a row uses; ``unused`` are the elements of those that it does not."""
        keys = config.experts
        assert keys is not None
        one = 3 * config.hidden * config.width_of_expert
        router = config.hidden * keys.count
        active = one * (keys.active + keys.shared) + router
        unused = one * (keys.count - keys.active)
        return PartCost(active + unused, 0, 2 * active * window.rows, unused=unused)

    @staticmethod
    def splits(config: ModelConfig) -> list[Split]:
        return [Split("model.experts.width", config.width_of_expert)]


class _GateUp(ColumnLinear):
    """[experts * 2 * width, hidden]: of each expert, gate above up."""

    def __init__(self, count: int, hidden: int, width: int, tensor: TensorParallel) -> None:
        super().__init__(hidden, count * 2 * width, "hidden", tensor, parts=2 * count, shared_out=True)
        self.count = count // tensor.expert.size

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        return grouped_matmul(x, self.weight.view(self.count, -1, self.weight.shape[1]), counts)


class _Down(RowLinear):
    """[experts * hidden, width]."""

    def __init__(self, count: int, width: int, hidden: int, tensor: TensorParallel) -> None:
        super().__init__(width, count * hidden, "residual", tensor, parts=count, shared_out=True)
        self.count = count // tensor.expert.size

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        return grouped_matmul(x, self.weight.view(self.count, -1, self.weight.shape[1]), counts)


class _Summand(RowLinear):
    """This tensor rank's summand, which is added to others before ranks add theirs up."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x, self.weight)
