"""SwiGLU (Shazeer 2020, 2002.05202)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from megarc.model.block_part import PartCost, Split
from megarc.model.config import ModelConfig
from megarc.model.feed_forward.feed_forward import FeedForward
from megarc.model.layers import ColumnLinear, RowLinear
from megarc.parallel import TensorParallel
from megarc.window import Window


class SwiGLU(FeedForward):
    """``down(silu(gate(x)) * up(x))``, gate above up as one matrix. Each tensor rank has some of the inner width."""

    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__(config, tensor)
        self.tensor = tensor
        self.gate_up = ColumnLinear(config.hidden, 2 * config.width_of_ffn, "hidden", tensor, parts=2)
        self.down = RowLinear(config.width_of_ffn, config.hidden, "residual", tensor)

    def forward(self, x: Tensor, kept: int | None = None) -> Tensor:
        assert kept is None, "this feed-forward has one width"
        gate, up = self.gate_up(self.tensor.enter(x)).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)

    @staticmethod
    def cost(config: ModelConfig, window: Window) -> PartCost:
        matrices = 3 * config.hidden * config.width_of_ffn
        return PartCost(matrices, 0, 2 * matrices * window.rows)

    @staticmethod
    def splits(config: ModelConfig) -> list[Split]:
        return [Split("model.ffn", config.width_of_ffn)]
