"""The door of a mixer."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from megarc.attention import Cached, LayerCache
from megarc.interval import Seen
from megarc.model.block_part import Part
from megarc.model.config import ModelConfig
from megarc.model.mixers.scan import Scan, scan
from megarc.parallel import TensorParallel


class Mixer(Part):
    """Moves information from row to row, as far as the window's mask allows.

    Args:
        engine: the attention engine, ``execution.attention``.
        layer: the number of its block: its place in the cache.
        tensor: this rank's place in the tensor group.

    Attributes:
        scan: what runs a linear recurrence; the block says with what.
        picks: whether ``forward`` takes ``read``: rows of which alone the result is wanted, ``cache.last`` or,
            without a cache, a slice.
    """

    picks: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, config: ModelConfig, engine: str, layer: int, tensor: TensorParallel) -> None:
        super().__init__()
        self.scan: Scan = scan

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        seen: Seen,
        cache: Cached | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """``x`` [batch, rows (or this rank's part of them), hidden] -> the same shape.

        Args:
            seen: rows of R of a plain window, or the interval of keys that each row sees, [batch, n].
            cache: what earlier rows left; these rows follow them and are added.
            positions: [batch, n], where each row stands; None: its number.
        """

    @staticmethod
    @abstractmethod
    def cache_shape(config: ModelConfig, ranks: int) -> LayerCache:
        """What a cache keeps of one layer of one text, on one of ``ranks`` tensor ranks."""
