"""Who orthogonalises which matrix, and what travels for it.

The parts of a matrix lie on many ranks: a shard on each tensor rank, and of a shard a range on each data rank (ZeRO 1
to 3) or all of it on every one (ZeRO 0). Each matrix has one owner among the ranks of its pipeline stage. Two
all-to-alls bring the parts to the owners and the results back. Nothing else travels, and no matrix is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from megarc.model import Record
from megarc.parallel import Box, Overlap, overlaps

Holdings = Sequence[Mapping[str, Sequence[Box]]]
"""Of each rank of the stage, the boxes that it holds of each parameter by name; what it lacks is left out."""

_SLACK = 1.1
"""How much more than its even share of the work a rank may own for the sake of what it holds already."""


class Place(NamedTuple):
    """Where a rank of the stage stands; context ranks count as data ranks, which hold the same weights."""

    tensor: int
    data: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix of a model: a parameter, or a part of one where several lie one above the other.

    Attributes:
        split: over the tensor group; else every rank of it holds the same.
        experts: data ranks, one after the other, that hold different matrices of this parameter.
    """

    name: str
    part: Box
    split: bool
    experts: int = 1

    @property
    def rows(self) -> int:
        return self.part.bottom - self.part.top

    @property
    def columns(self) -> int:
        return self.part.width

    @property
    def work(self) -> int:
        """In proportion to the FLOPs of an iteration's largest products."""
        return self.part.size * min(self.rows, self.columns)


def matrices_of(name: str, record: Record) -> list[Matrix]:
    """The matrices of a parameter: q, k, v, gate and up each count as one."""
    rows, columns = record.shape
    height = rows // record.parts
    tops = range(0, rows, height)
    return [Matrix(name, Box(top, top + height, 0, columns), record.split, record.experts) for top in tops]


class Route(NamedTuple):
    """What one rank holds of matrix number ``matrix``: runs in its fragment (source) and in the matrix (target)."""

    matrix: int
    runs: list[Overlap]

    @property
    def elements(self) -> int:
        return sum(run.rows * run.width for run in self.runs)


class Sharing:
    """The owners of matrices, and every rank's routes; the same on every rank of the stage.

    Args:
        places: of the ranks of the stage.
        sharded: whether data ranks hold different parts (ZeRO 1 to 3).
    """

    def __init__(
        self, matrices: Sequence[Matrix], holdings: Holdings, places: Sequence[Place], sharded: bool
    ) -> None:
        self.matrices, self.places, self.sharded = matrices, places, sharded
        self._routes = [list(_routes(matrices, held)) for held in holdings]
        self.owners = self._assign()

    @property
    def ranks(self) -> int:
        return len(self.places)

    def owned(self, rank: int) -> list[int]:
        """Numbers of the matrices that ``rank`` orthogonalises."""
        return [number for number, owner in enumerate(self.owners) if owner == rank]

    def parts(self, holder: int, owner: int) -> list[Route]:
        """What ``holder`` holds of the matrices of ``owner``: what it gets back."""
        return self._by_owner[holder][owner]

    def gives(self, holder: int, owner: int) -> list[Route]:
        """What ``holder`` sends to ``owner``: of elements that several ranks hold alike, one of them sends."""
        there, here = self.places[owner], self.places[holder]
        return [
            route
            for route in self.parts(holder, owner)
            if self._sends(here, there, self.matrices[route.matrix])
        ]

    def _sends(self, here: Place, there: Place, matrix: Matrix) -> bool:
        # Where data ranks hold all of their weights, the owner's own one sends; of experts, one of those beside it.
        beside = self.sharded or here.data // matrix.experts == there.data // matrix.experts
        return beside and (matrix.split or here.tensor == there.tensor)

    def sent(self, rank: int) -> int:
        """Elements that ``rank`` sends to others in a step."""
        others = [other for other in range(self.ranks) if other != rank]
        return sum(
            route.elements
            for other in others
            for route in (*self.gives(rank, other), *self.parts(other, rank))
        )

    @cached_property
    def _by_owner(self) -> list[list[list[Route]]]:
        found: list[list[list[Route]]] = []
        for listed in self._routes:
            mine: list[list[Route]] = [[] for _ in self.places]
            for route in listed:
                mine[self.owners[route.matrix]].append(route)
            found.append(mine)
        return found

    def _assign(self) -> list[int]:
        """To the rank that holds most of it, as long as none has much more work than another; else to the idlest."""
        shares: list[dict[int, int]] = [{} for _ in self.matrices]
        for rank, listed in enumerate(self._routes):
            for route in listed:
                shares[route.matrix][rank] = route.elements
        owners, load = [0] * len(self.matrices), [0] * self.ranks
        limit = _SLACK * sum(matrix.work for matrix in self.matrices) / self.ranks
        order = sorted(range(len(self.matrices)), key=lambda one: -self.matrices[one].work)
        for number in order:
            work, share = self.matrices[number].work, shares[number]
            fitting = [rank for rank in share if load[rank] + work <= limit]
            owner = min(
                fitting or range(self.ranks),
                key=lambda rank: (-share.get(rank, 0) if fitting else 0, load[rank], rank),
            )
            owners[number] = owner
            load[owner] += work
        return owners


def _routes(matrices: Iterable[Matrix], held: Mapping[str, Sequence[Box]]) -> Iterator[Route]:
    for number, matrix in enumerate(matrices):
        runs = list(overlaps(held.get(matrix.name, ()), [matrix.part]))
        if runs:
            yield Route(number, runs)
