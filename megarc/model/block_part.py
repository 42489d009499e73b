"""What both parts of a block, its mixer and its feed-forward, say about themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import nn

from megarc.model.config import ModelConfig
from megarc.window import Window


class PartCost(NamedTuple):
    """Elements of one layer's part, and its FLOPs of one window forward; ``Cost`` says what counts.

    ``full_square_flops`` is ``attention_flops`` with all n * n pairs counted; ``unused`` are those of the
    matrices' elements that a row does not meet.
    """

    matrices: int
    gains: int
    matrix_flops: int
    attention_flops: int = 0
    full_square_flops: int = 0
    unused: int = 0


class Split(NamedTuple):
    """A number that is cut over the tensor ranks, and the key that sets it.

    With ``or_shared`` there may also be fewer of them than ranks: then several ranks share one.
    ``unit`` of them stay together on a rank.
    """

    key: str
    number: int
    or_shared: bool = False
    unit: int = 1

    def fits(self, ranks: int) -> bool:
        """Whether so many tensor ranks can share it out evenly."""
        return self.number % (ranks * self.unit) == 0 or (self.or_shared and ranks % self.number == 0)


class Part(nn.Module, ABC):
    """A mixer or a feed-forward of one layer.

    It makes its parameters with ``matrix`` and ``vector``, so that each carries its ``Record``: initial
    values, weight decay, checkpoints and gradient norms need nothing else. Its products go through
    ``Projection.linear``, which the block may replace by one in fp8.

    Memory is not declared but measured: ``footprint`` runs the part with fake tensors and counts what it
    keeps for the backward pass. So its shapes may not depend on values. ``selective`` recomputation keeps
    what matrix products give, and operators of the namespace ``megarc`` (``recompute.is_costly``).
    """

    @staticmethod
    @abstractmethod
    def cost(config: ModelConfig, window: Window) -> PartCost:
        """Of one layer, without building it."""

    @staticmethod
    @abstractmethod
    def splits(config: ModelConfig) -> list[Split]:
        """What the number of tensor ranks must divide."""
