"""What the window's mask says to a recurrence: where it begins anew, and over which rows it runs backward.

A row of R reads the rows before it and those behind it, a row of C those before it. So a mixer that runs forward over
all rows and backward over R reads exactly the allowed pairs. An R of one row allows the pairs of no R, and is none.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from megarc.errors import UserError
from megarc.interval import Intervals, Seen


class Documents(NamedTuple):
    """Of rows that see intervals, bool [batch, rows] each.

    Attributes:
        first: whether a row is its document's first.
        inside: whether a row is of its document's R.
        last: whether nothing behind the row is read by it: the last row of R, and every row of C.
    """

    first: Tensor
    inside: Tensor
    last: Tensor


def directions(seen: Seen, rows: int) -> int | Documents:
    """How many first rows a backward pass runs over, the same in every sample; or what each row is.

    Raises:
        UserError: for intervals that do not begin where their document does, as under a sliding window.
    """
    if not isinstance(seen, Intervals):
        return seen if seen > 1 else 0
    begin = seen.begin.long()
    row = torch.arange(rows, device=begin.device)
    _check(begin)
    recent_end = seen.end.long().gather(1, begin)
    inside = (row < recent_end) & (recent_end > begin + 1)
    return Documents(begin == row, inside, ~inside | (row + 1 == recent_end))


def _check(begin: Tensor) -> None:
    """Not where looking would wait for a device or break a compiled graph."""
    if begin.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if not torch.equal(begin.gather(1, begin), begin):
        raise UserError(
            "a recurrence reads whole documents, and these intervals begin elsewhere, as under a sliding window; "
            "use model.mixers=attention"
        )
