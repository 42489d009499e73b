"""Which keys a row sees, where rows differ in it: one interval of keys a row.

The plain window says it with one number, ``recent`` (``window.py``). Documents packed
into one row, an R by sample, an R by document and sliding windows need more: two
integers for each row say all of it. Row q sees the keys ``begin[q] <= k < end[q]``:

    begin    the first row of q's document; under a sliding window of w keys not before q - w + 1
    end      the row behind R of q's document, and behind q itself: max(R's end, q + 1)

Neither ever falls from one row to the next. So a key is seen from one interval of rows, and
a tile of rows sees one interval of keys: kernels rest on this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.window import WIDE, Narrowing, pairs

Rows: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Intervals:
    """Row q of sample b sees the keys ``begin[b, q] <= k < end[b, q]``. Arrays are numpy's or torch's.

    Attributes:
        begin: ``[batch, rows]`` of int32; never falls along the rows; ``begin[b, q] <= q``.
        end: alike; ``q < end[b, q] <= rows``.
    """

    begin: Any
    end: Any

    @classmethod
    def of(
        cls,
        rows: int,
        recent: Rows,
        documents: Rows | None = None,
        recent_end: Rows | None = None,
        sliding: int | None = None,
    ) -> Intervals:
        """From what a batch says of its rows, in numpy.

        Args:
            recent: ``[batch]``, how many first rows are R; a document that R ends in has the R that is left.
            documents: ``[batch, rows]``; a document is a run of rows with one number. None: one document.
            recent_end: ``[batch, rows]``, the row behind R of each row's document; None: as ``recent`` says.
            sliding: a row sees no key that lies this many rows or more before it; None: any.
        """
        row: Rows = np.arange(rows, dtype=np.int32)
        begin: Rows = np.zeros((len(recent), rows), dtype=np.int32)
        behind: Rows = np.full_like(begin, rows)
        if documents is not None:
            begin, behind = _borders(documents)
        wanted = recent[:, None] if recent_end is None else recent_end
        end = np.maximum(np.minimum(wanted, behind), row + 1).astype(np.int32)
        return cls(begin if sliding is None else np.maximum(begin, row - sliding + 1), end)

    @property
    def rows(self) -> int:
        """Rows of a sample."""
        return int(self.begin.shape[-1])

    def allow(self, key: Any, rows: slice = slice(None)) -> Any:
        """Whether the rows ``rows`` see ``key`` [keys]: bool ``[batch, len(rows), keys]``."""
        begin, end = self.begin[..., rows, None], self.end[..., rows, None]
        return (begin <= key) & (key < end)

    def pairs(self) -> int:
        """Allowed (query, key) pairs of all samples together."""
        return int((self.end - self.begin).sum())

    def map(self, function: Callable[[Any], Any]) -> Intervals:
        """With ``function`` of both arrays: other samples, another device."""
        return Intervals(function(self.begin), function(self.end))


Seen: TypeAlias = int | Intervals
"""What rows see: those of a plain window with so many rows of R, in every sample; or an interval each."""


def seen_by(rows: int, recent: Rows, documents: Rows | None = None, recent_end: Rows | None = None) -> Seen:
    """As ``Intervals.of``; one number where all samples have one plain window."""
    if documents is None and recent_end is None and (recent == recent[0]).all():
        return int(recent[0])
    return Intervals.of(rows, recent, documents, recent_end)


def causally(seen: Seen, row: Any) -> Seen:
    """What heads see that see no key behind their row: ``seen``, whose rows are ``row``, without later keys."""
    if not isinstance(seen, Intervals):
        return 0
    return replace(seen, end=seen.end.clip(max=row + 1))


def pairs_of(seen: Seen, rows: int, samples: int, narrowing: Narrowing = WIDE) -> float:
    """Allowed pairs of a head in ``samples`` samples of ``rows`` rows, on average over the heads.

    Args:
        seen: in numpy.
    """
    sliding, share = narrowing.sliding, narrowing.causal
    if not isinstance(seen, Intervals):
        both_ways, causal = pairs(rows, seen, sliding), pairs(rows, 0, sliding)
        return samples * ((1 - share) * both_ways + share * causal)
    row: Rows = np.arange(rows, dtype=np.int32)
    if sliding is not None:
        seen = Intervals(np.maximum(seen.begin, row - sliding + 1), seen.end)
    early = Intervals(seen.begin, np.minimum(seen.end, row + 1))
    return (1 - share) * seen.pairs() + (share * early.pairs() if share else 0)


def _borders(documents: Rows) -> tuple[Rows, Rows]:
    """The first row of each row's document, and the row behind its last: [batch, rows] each."""
    rows = documents.shape[1]
    row: Rows = np.arange(rows, dtype=np.int32)
    new = documents[:, 1:] != documents[:, :-1]
    first, last = np.pad(new, ((0, 0), (1, 0))), np.pad(new, ((0, 0), (0, 1)), constant_values=True)
    begin = np.maximum.accumulate(np.where(first, row, 0), axis=1)
    behind = np.minimum.accumulate(np.where(last, row + 1, rows)[:, ::-1], axis=1)[:, ::-1]
    return begin.astype(np.int32), behind.astype(np.int32)
