"""The door of a feed-forward."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from megarc.model.block_part import Part
from megarc.model.config import ModelConfig
from megarc.parallel import TensorParallel


class FeedForward(Part):
    """Computes on each row alone, so it needs neither a mask nor a cache."""

    @abstractmethod
    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, kept: int | None = None) -> Tensor:
        """``x`` [batch, rows (or this rank's part of them), hidden] -> the same shape.

        Args:
            kept: of a nested one, how many neurons of each group take part; None: all.
        """
