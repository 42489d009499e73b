"""Batches, and who reads which part of one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megarc.data.source import Indices, Segments, Weights
from megarc.errors import UserError
from megarc.interval import Seen, seen_by


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples of the order, n rows each, of which the last s bear loss.

    Attributes:
        tokens: [B, n + 1]; row i holds token i and predicts token i + 1.
        recent: [B], rows of R.
        samples: [B], their numbers in the order.
        weights: [B, s] of the loss rows, or [B, n] of all rows; None: all 1. The same answer for every batch of a
            stream.
        documents: [B, n], rows attend only within one number; None: no matter. The same for every batch.
        positions: [B, n], where each row stands; None: its number. The same for every batch.
        recent_end: [B, n], the row behind R of each row's document; None: ``recent`` says it. The same for every
            batch.
        inputs: [B, n], what the rows hold where some of it is hidden; None: ``tokens[:, :-1]``.
    """

    tokens: npt.NDArray[np.int32]
    recent: Segments
    samples: Indices
    weights: Weights | None = None
    documents: Segments | None = None
    positions: Segments | None = None
    recent_end: Segments | None = None
    inputs: npt.NDArray[np.int32] | None = None

    def seen(self) -> Seen:
        """What rows see: one number where all samples have one plain window, else intervals [B, n]."""
        return seen_by(self.tokens.shape[1] - 1, self.recent, self.documents, self.recent_end)


def part_of_step(first: int, batch: int, rank: int, ranks: int, micro_batch: int) -> list[tuple[int, int]]:
    """What data rank ``rank`` of ``ranks`` reads in the step of samples first .. first + batch - 1.

    The step is cut into ``ranks`` equal consecutive parts, a part into
    consecutive micro-batches: ``(first, count)`` of each, in order.

    Raises:
        UserError: where the batch cannot be cut so.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"data rank {rank} of {ranks}")
    if micro_batch < 1 or batch < 1 or batch % (ranks * micro_batch):
        raise UserError(
            f"a batch of {batch} samples cannot be cut into {ranks} data ranks with micro-batches of "
            f"{micro_batch}; make it a multiple of {max(ranks * micro_batch, 1)}"
        )
    part = batch // ranks
    begin = first + rank * part
    return [(begin + offset, micro_batch) for offset in range(0, part, micro_batch)]
