"""Cuts the rows of a batch into pieces that need no key outside their own range: for engines on the CPU.

A document is such a piece, and usually a plain [R | C] of its own. Short documents are taken whole under a mask,
and very short ones that follow each other together, since a call costs more than their pairs.

Of rows that are some of a window's (parallel.context), pieces are runs that see the same keys, or each one key
more than the one before: the last rows of a plain window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

Rows: TypeAlias = npt.NDArray[np.int64]

SHORT = 128  # rows of a document that is worth more than one call; measured, as JOINED was (docs/journal.md)
JOINED = 64  # rows of documents that one call takes together, at most: half of them where it serves several samples


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of some samples, and the keys that they see.

    Attributes:
        sample: consecutive samples with equal intervals.
        recent: rows and keys are one plain window with so many rows of R, or the last rows of one (all of them
            see the keys before ``recent``); None: a mask is needed.
        alike: False: the samples' intervals differ, and each needs a mask of its own.
    """

    sample: slice
    rows: slice
    keys: slice
    recent: int | None
    alike: bool = True

    @classmethod
    def whole(cls, samples: int, rows: int) -> Piece:
        """All rows of a batch, and as many keys."""
        return cls(slice(0, samples), slice(0, rows), slice(0, rows), None, alike=False)


def pieces(begin: Tensor, end: Tensor, keys: int, chunk: int) -> Iterator[Piece]:
    """All rows of ``begin``, ``end`` ``[batch, rows]`` in pieces; masked ones have ``chunk`` rows at most.

    Args:
        keys: of the window; more of them than rows where the rows are some of the window's.
    """
    first: Rows = begin.numpy().astype(np.int64)
    behind: Rows = end.numpy().astype(np.int64)
    new = np.any((first[1:] != first[:-1]) | (behind[1:] != behind[:-1]), axis=1)
    groups = [0, *(np.nonzero(new)[0] + 1).tolist(), len(first)]
    for start, stop in pairwise(groups):
        cut = _closed if first.shape[1] == keys else _runs
        most = JOINED // min(2, stop - start) if cut is _closed else chunk
        for rows, recent in cut(first[start], behind[start], most):
            for part in [rows] if recent is not None else _cut(rows, chunk):
                seen = slice(int(first[start, part.start]), int(behind[start, part.stop - 1]))
                yield Piece(slice(start, stop), part, seen, recent)


def _closed(begin: Rows, end: Rows, most: int) -> Iterator[tuple[slice, int | None]]:
    """Runs of rows that see none but each other, with R where they are one plain window."""
    row = np.arange(len(begin))
    apart = (begin == row) & (np.concatenate([[0], end[:-1]]) <= row)
    borders = [*np.nonzero(apart)[0].tolist(), len(begin)]
    return _joined(
        borders, most, lambda first, last: _recent(begin[first:last] - first, end[first:last] - first)
    )


def _runs(begin: Rows, end: Rows, most: int) -> Iterator[tuple[slice, int | None]]:
    """Runs of rows with one begin that all see the same, or each one key more, and the keys that all of them see."""
    more = np.diff(end)
    kind = np.where((np.diff(begin) == 0) & (more <= 1), more, -1)  # of two neighbours: 0 or 1; -1: a border
    border = kind < 0
    # Where two kinds meet, the row between them belongs to the run before it.
    border[1:] |= (kind[1:] != kind[:-1]) & (kind[:-1] >= 0)
    borders = [0, *(np.nonzero(border)[0] + 1).tolist(), len(begin)]

    def recent(first: int, last: int) -> int:
        all_see = end[first] - begin[first]
        return int(all_see if end[last - 1] == end[first] else all_see - 1)

    return _joined(borders, most, recent)


def _joined(
    borders: list[int], most: int, recent: Callable[[int, int], int | None]
) -> Iterator[tuple[slice, int | None]]:
    """The rows between neighbouring borders with their ``recent``; short neighbours as one, up to ``most`` rows."""
    waiting: int | None = None  # where short ones that are not out yet begin
    for first, last in pairwise(borders):
        if waiting is not None and (last - first >= SHORT or last - waiting > most):
            yield slice(waiting, first), None
            waiting = None
        if last - first < SHORT:
            waiting = first if waiting is None else waiting
        else:
            yield slice(first, last), recent(first, last)
    if waiting is not None:
        yield slice(waiting, borders[-1]), None


def _recent(begin: Rows, end: Rows) -> int | None:
    """R of the plain window that these intervals are; None: they are none."""
    plain = np.maximum(end[0], np.arange(1, len(end) + 1))
    if begin.any() or (end != plain).any():
        return None
    return int(end[0]) if end[0] > 1 else 0


def _cut(rows: slice, size: int) -> Iterator[slice]:
    for first in range(rows.start, rows.stop, size):
        yield slice(first, min(first + size, rows.stop))
