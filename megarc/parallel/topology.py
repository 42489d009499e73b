"""How ranks are laid out: tensor fastest, then context, then data, then pipeline.

To DeepSpeed's own grid, context and data ranks together are its data parallel ranks: they hold the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from megarc.errors import UserError

Dimension = Literal["tensor", "context", "data", "pipeline"]


@dataclass(frozen=True, slots=True)
class Topology:
    """Sizes of the parallel dimensions; ``sequence`` splits rows over the tensor group between its layers.

    ``context`` ranks share the rows of one sample, ``data`` ranks read different samples.
    """

    tensor: int = 1
    data: int = 1
    pipeline: int = 1
    sequence: bool = False
    context: int = 1

    @classmethod
    def fit(
        cls, world: int, *, tensor: int = 1, pipeline: int = 1, sequence: bool = False, context: int = 1
    ) -> Topology:
        """The topology of ``world`` ranks; what tensor, context and pipeline leave is data parallel.

        Raises:
            UserError: where they do not divide the world.
        """
        sample = tensor * context * pipeline  # ranks that work on one sample
        if world % sample:
            shared = f" x parallel.context {context}" if context > 1 else ""
            raise UserError(
                f"{world} ranks cannot be laid out as parallel.tensor {tensor}{shared} x parallel.pipeline "
                f"{pipeline}: start a multiple of {sample}, or change these keys"
            )
        # Over a group of one there is nothing to split.
        return cls(tensor, world // sample, pipeline, sequence and tensor > 1, context)

    @property
    def world(self) -> int:
        return self.tensor * self.context * self.data * self.pipeline

    @property
    def replicas(self) -> int:
        """Ranks that hold the same weights, or share them out by ZeRO: all context and data ranks."""
        return self.context * self.data

    def place(self, rank: int) -> dict[Dimension, int]:
        """Where ``rank`` stands in each dimension."""
        return {
            "tensor": rank % self.tensor,
            "context": rank // self.tensor % self.context,
            "data": rank // (self.tensor * self.context) % self.data,
            "pipeline": rank // (self.tensor * self.replicas),
        }

    def replica(self, rank: int) -> int:
        """The number of ``rank`` among the ranks that hold the same weights."""
        return rank // self.tensor % self.replicas

    def groups(self, dimension: Dimension) -> list[list[int]]:
        """The groups of ranks that differ in ``dimension`` alone; every rank is in one."""
        found: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.world):
            others = tuple(index for name, index in self.place(rank).items() if name != dimension)
            found.setdefault(others, []).append(rank)
        return list(found.values())

    def stage(self, rank: int) -> list[int]:
        """The ranks of the pipeline stage of ``rank``: its tensor, context and data ranks."""
        size = self.tensor * self.replicas
        first = rank // size * size
        return list(range(first, first + size))

    def same_weights(self, rank: int) -> list[int]:
        """The ranks that hold the same weights as ``rank``: its context and data ranks."""
        return [one for one in self.stage(rank) if (one - rank) % self.tensor == 0]

    def members(self, dimension: Dimension, rank: int) -> list[int]:
        """The group of ``rank`` along ``dimension``."""
        return next(ranks for ranks in self.groups(dimension) if rank in ranks)
