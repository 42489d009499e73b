"""Which rows of a window each rank of a context group takes, so that all have equally many and equally much to do.

A row's work outside of attention is the same for all rows; inside, it is the keys that the row sees, and a row that
bears loss has the head's products too. So each rank takes the same number of rows, and rows are dealt in chunks: the
chunks are sorted by their work, and each ``ranks`` of them in turn go one to each rank, the heaviest to the rank that
has least so far. Chunks are the longest with which the busiest rank has hardly more than the mean: two a rank for a
causal window, four for one that is half R. Any mask that one interval of keys a row can say is balanced so: causal,
[R | C], packed documents, sliding windows (docs/long-windows.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.interval import Intervals, Seen, causally
from megarc.window import WIDE, Narrowing

Numbers: TypeAlias = npt.NDArray[np.int64]
Work: TypeAlias = npt.NDArray[np.float64]

_EVEN = 1.01  # the busiest rank's work over the mean, with which no shorter chunks are tried
_MOST = 512  # chunks of a rank


def work_of_rows(
    seen: Seen, rows: int, samples: int, narrowing: Narrowing = WIDE, loss: Numbers | None = None
) -> Work:
    """The (query, key) pairs that each row of a window allows, a head's mean, summed over samples: [rows].

    Args:
        seen: in numpy.
        narrowing: how the model's attention sees less.
        loss: [rows], what else a row has to do, in pairs; None: nothing.
    """
    row: Numbers = np.arange(rows, dtype=np.int64)
    first = np.zeros_like(row) if narrowing.sliding is None else np.maximum(row - narrowing.sliding + 1, 0)
    share = narrowing.causal
    pairs = (1 - share) * _keys(seen, row, first, samples)
    if share:
        pairs = pairs + share * _keys(causally(seen, row), row, first, samples)
    return pairs if loss is None else pairs + loss


def _keys(seen: Seen, row: Numbers, first: Numbers, samples: int) -> Numbers:
    """How many keys each row of all samples sees from the row ``first`` on: [rows]."""
    if isinstance(seen, Intervals):
        keys: Numbers = (seen.end - np.maximum(seen.begin, first)).sum(axis=0, dtype=np.int64)
        return keys
    return samples * (np.maximum(row + 1, seen) - first)


def row_shares(work: Work, ranks: int) -> list[Numbers]:
    """The rows of each rank, ascending; each has ``len(work) / ranks`` of them.

    Args:
        work: [rows], what each row has to do; ``ranks`` divides the rows.
    """
    own, left = divmod(len(work), ranks)
    assert left == 0, f"{len(work)} rows over {ranks} ranks"
    before = np.concatenate([[0], np.cumsum(work)])
    best: tuple[float, Numbers] | None = None
    for count in _divisors(own):
        size = own // count
        owner, busiest = _dealt(np.diff(before[::size]), ranks)
        if best is None or busiest < best[0]:
            best = busiest, np.repeat(owner, size)
        if busiest <= _EVEN * before[-1] / ranks:
            break
    assert best is not None
    return [np.nonzero(best[1] == rank)[0] for rank in range(ranks)]


def _divisors(rows: int) -> Iterator[int]:
    """Into how many equal chunks a rank's rows can be cut, the fewest first."""
    return (count for count in range(1, min(rows, _MOST) + 1) if rows % count == 0)


def _dealt(chunks: Work, ranks: int) -> tuple[Numbers, float]:
    """The owner of each chunk, and what the busiest rank has to do."""
    order = np.argsort(-chunks, kind="stable").reshape(-1, ranks)
    owner: Numbers = np.empty(len(chunks), dtype=np.int64)
    has: Work = np.zeros(ranks)
    for some in order:  # one for each rank, the heaviest first
        idlest = np.argsort(has, kind="stable")
        owner[some] = idlest
        has[idlest] += chunks[some]
    return owner, float(has.max())
