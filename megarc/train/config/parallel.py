"""The keys of who holds what."""

from __future__ import annotations

from typing import Literal

from megarc.config import Config, key


class ParallelConfig(Config):
    """Who holds what. Ranks that tensor, context and pipeline leave are data parallel."""

    tensor: int = key(1, "ranks over which each layer is split", circumstance=True, ge=1)
    pipeline: int = key(
        1, "stages, one after the other, over which the layers are distributed", circumstance=True, ge=1
    )
    sequence: bool = key(
        False, "between split layers, each tensor rank keeps a part of the rows", circumstance=True
    )
    context: int = key(
        1,
        "ranks that share the rows of each window, and hold the same weights (docs/long-windows.md)",
        circumstance=True,
        ge=1,
    )
    expert: int = key(
        1,
        "data ranks over which the experts of model.experts are distributed; it divides the number of data ranks",
        circumstance=True,
        ge=1,
    )
    zero: Literal[0, 1, 2, 3] = key(
        1,
        "ZeRO stage: what is partitioned over data and context ranks. 0 nothing, 1 optimizer, "
        "2 + gradients, 3 + weights",
        circumstance=True,
    )
    offload: Literal["none", "optimizer", "all"] = key(
        "none",
        "what lives in the host's memory: the optimizer (with zero 1 to 3), or the weights too (zero 3)",
        circumstance=True,
    )
    node: int | None = key(
        None,
        "zero 3: ranks of a node, that keep a second copy of the weights among them (ZeRO++'s hpZ); null: none",
        circumstance=True,
        ge=2,
    )
    data: int | None = key(
        None, "data parallel ranks; another number is refused. null: what tensor, context and pipeline leave",
        circumstance=True, ge=1,
    )  # fmt: skip
    world: int | None = key(
        None,
        "ranks that this run expects; with another number the run is refused. null: any",
        circumstance=True,
        ge=1,
    )

    @property
    def expected(self) -> int | None:
        """Ranks that must come, where the keys say so."""
        if self.world is None and self.data is not None:
            return self.tensor * self.context * self.pipeline * self.data
        return self.world
