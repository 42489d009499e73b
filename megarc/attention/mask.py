"""Who sees whom, as the engines take it: a window's ``recent``, per sample if need be, and documents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from megarc.window import allow


@dataclass(frozen=True, slots=True)
class Mask:
    """Row q sees row k where ``k < recent or k <= q``, and both stand in one document.

    Args:
        recent: rows of R, the same in every sample; where ``recents`` is given, ignored.
        recents: rows of R of each sample, ``[batch]`` of integers.
        documents: the segment of each row, ``[batch, rows]`` of integers.
    """

    recent: int
    recents: Tensor | None = None
    documents: Tensor | None = None

    @property
    def uniform(self) -> bool:
        """Whether all samples have one mask, given by ``recent`` alone."""
        return self.recents is None and self.documents is None

    def dense(self, rows: int, first: int = 0, last: int | None = None, *, device: torch.device) -> Tensor:
        """The allowed pairs of rows ``first .. last-1``: bool ``[batch or 1, last - first, rows]``."""
        last = rows if last is None else last
        query = torch.arange(first, last, device=device)[:, None]
        key = torch.arange(rows, device=device)
        recent = self.recent if self.recents is None else self.recents[:, None, None]
        allowed: Tensor = allow(query, key, recent)
        allowed = allowed if allowed.dim() == 3 else allowed[None]
        if self.documents is not None:
            allowed = allowed & (self.documents[:, first:last, None] == self.documents[:, None, :])
        return allowed


def segment_ranges(documents: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The least and the greatest segment of each tile of ``size`` rows: ``[batch, tiles]`` each.

    Tiles whose ranges do not overlap share no document.
    """
    short = -documents.shape[1] % size
    padded = torch.cat([documents, documents[:, -1:].expand(-1, short)], dim=1)
    tiles = padded.unflatten(1, (-1, size))
    return tiles.amin(dim=2), tiles.amax(dim=2)
