"""How a recurrent mixer writes into the residual stream: heads normalised, gated, and brought together."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from megarc.model.config import ModelConfig
from megarc.model.layers import ColumnLinear, Norm, RowLinear
from megarc.parallel import TensorParallel


class GatedOutput(nn.Module):
    """``(norm(y) * silu(x W_g)) W_o``, the norm over each head (as in GLA, 2312.06635, section 4.4)."""

    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__()
        width = config.heads * config.width_of_head
        self.gate = ColumnLinear(config.hidden, width, "hidden", tensor)
        self.norm = Norm(config.width_of_head, config.norm_epsilon, tensor, partial=tensor.size > 1)
        self.out = RowLinear(width, config.hidden, "residual", tensor)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """``y`` [batch, heads, rows, head_dim], ``x`` [batch, rows, hidden] -> [batch, rows, hidden]."""
        return self.out(self.norm(y).transpose(1, 2).flatten(2) * F.silu(self.gate(x)))

    @staticmethod
    def elements(config: ModelConfig) -> int:
        """Of its matrices."""
        return 2 * config.hidden * config.heads * config.width_of_head
