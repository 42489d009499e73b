"""SwiGLU with nested widths (MatFormer, 2310.07707): a part of its neurons is a feed-forward of its own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from megarc.model.block_part import PartCost, Split
from megarc.model.config import ModelConfig
from megarc.model.feed_forward.feed_forward import FeedForward
from megarc.model.layers import ColumnLinear, RowLinear
from megarc.parallel import TensorParallel
from megarc.window import Window


class NestedSwiGLU(FeedForward):
    """SwiGLU of the first ``kept`` neurons of every group (``model.nesting``).

    Each tensor rank has whole groups, so its part of every width is as large. The matrices are cut as they
    are used: narrow widths cost fewer FLOPs, and what is left out gets gradients of 0.
    """

    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__(config, tensor)
        self.tensor = tensor
        self.gate_up = _GateUp(config, tensor)
        self.down = _Down(config, tensor)

    def forward(self, x: Tensor, kept: int | None = None) -> Tensor:
        gate, up = self.gate_up(self.tensor.enter(x), kept).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up, kept)

    @staticmethod
    def cost(config: ModelConfig, window: Window) -> PartCost:
        """At full width."""
        matrices = 3 * config.hidden * config.width_of_ffn
        return PartCost(matrices, 0, 2 * matrices * window.rows)

    @staticmethod
    def splits(config: ModelConfig) -> list[Split]:
        return [Split("model.ffn", config.width_of_ffn, unit=config.neuron_group)]


class _GateUp(ColumnLinear):
    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__(config.hidden, 2 * config.width_of_ffn, "hidden", tensor, parts=2)
        self.group = config.neuron_group

    def forward(self, x: Tensor, kept: int | None = None) -> Tensor:
        weight = self.weight  # gate above up, and neither ends within a group
        if kept is not None:
            weight = weight.view(-1, self.group, weight.shape[1])[:, :kept].reshape(-1, weight.shape[1])
        return self.linear(x, weight)


class _Down(RowLinear):
    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__(config.width_of_ffn, config.hidden, "residual", tensor)
        self.group = config.neuron_group

    def forward(self, x: Tensor, kept: int | None = None) -> Tensor:
        weight = self.weight
        if kept is not None:
            weight = weight.view(weight.shape[0], -1, self.group)[..., :kept].flatten(1)
        return self.tensor.leave(self.linear(x, weight))
