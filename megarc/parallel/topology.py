"""How ranks are laid out: tensor fastest, then data, then pipeline, as DeepSpeed's own grid has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from megarc.errors import UserError

Dimension = Literal["tensor", "data", "pipeline"]


@dataclass(frozen=True, slots=True)
class Topology:
    """Sizes of the parallel dimensions; ``sequence`` splits rows over the tensor group between its layers."""

    tensor: int = 1
    data: int = 1
    pipeline: int = 1
    sequence: bool = False

    @classmethod
    def fit(cls, world: int, *, tensor: int = 1, pipeline: int = 1, sequence: bool = False) -> Topology:
        """The topology of ``world`` ranks; what tensor and pipeline leave is data parallel.

        Raises:
            UserError: where they do not divide the world.
        """
        if world % (tensor * pipeline):
            raise UserError(
                f"{world} ranks cannot be laid out as parallel.tensor {tensor} x parallel.pipeline "
                f"{pipeline}: start a multiple of {tensor * pipeline}, or change these keys"
            )
        # Over a group of one there is nothing to split.
        return cls(tensor, world // (tensor * pipeline), pipeline, sequence and tensor > 1)

    @property
    def world(self) -> int:
        return self.tensor * self.data * self.pipeline

    def place(self, rank: int) -> dict[Dimension, int]:
        """Where ``rank`` stands in each dimension."""
        return {
            "tensor": rank % self.tensor,
            "data": rank // self.tensor % self.data,
            "pipeline": rank // (self.tensor * self.data),
        }

    def groups(self, dimension: Dimension) -> list[list[int]]:
        """The groups of ranks that differ in ``dimension`` alone; every rank is in one."""
        found: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.world):
            others = tuple(index for name, index in self.place(rank).items() if name != dimension)
            found.setdefault(others, []).append(rank)
        return list(found.values())

    def stage(self, rank: int) -> list[int]:
        """The ranks of the pipeline stage of ``rank``: its tensor and data ranks."""
        size = self.tensor * self.data
        first = rank // size * size
        return list(range(first, first + size))

    def members(self, dimension: Dimension, rank: int) -> list[int]:
        """The group of ``rank`` along ``dimension``."""
        return next(ranks for ranks in self.groups(dimension) if rank in ranks)
