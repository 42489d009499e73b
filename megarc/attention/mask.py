"""Who sees whom, as the engines take it: a plain window's ``recent``, or an interval of keys for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from megarc.interval import Intervals, Seen
from megarc.window import allow


@dataclass(frozen=True, slots=True)
class Mask:
    """Row q sees row k where ``k < recent or k <= q``; or, with intervals, where ``begin <= k < end``.

    Args:
        recent: rows of R, the same in every sample; where there are intervals, ignored.
        begin: the first key that each row sees, int32 ``[batch, rows]``.
        end: the key behind the last one that each row sees, alike.
    """

    recent: int
    begin: Tensor | None = None
    end: Tensor | None = None

    @classmethod
    def of(cls, seen: Seen) -> Mask:
        """The mask that ``seen`` describes."""
        return cls(0, seen.begin, seen.end) if isinstance(seen, Intervals) else cls(int(seen))

    @property
    def intervals(self) -> Intervals | None:
        """The intervals, where rows have them."""
        return None if self.begin is None else Intervals(self.begin, self.end)

    @property
    def uniform(self) -> bool:
        """Whether all samples have one mask, given by ``recent`` alone."""
        return self.begin is None

    def dense(self, keys: int, *, device: torch.device) -> Tensor:
        """The allowed pairs: bool ``[batch or 1, rows, keys]``; rows are as many as keys but with intervals."""
        at = torch.arange(keys, device=device)
        if self.intervals is not None:
            allowed: Tensor = self.intervals.allow(at)
            return allowed
        plain: Tensor = allow(at[:, None], at, self.recent)
        return plain[None]


@overload
def on_device(seen: Intervals, device: torch.device | str) -> Intervals: ...


@overload
def on_device(seen: Seen, device: torch.device | str) -> Seen: ...


def on_device(seen: Seen, device: torch.device | str) -> Seen:
    """``seen`` with its arrays, numpy's or torch's, as tensors on ``device``."""
    if not isinstance(seen, Intervals):
        return seen
    return seen.map(lambda array: torch.as_tensor(array).to(device, non_blocking=True))


def narrowed(
    seen: Seen, sliding: int | None, batch: int, rows: int, device: torch.device, first: int = 0
) -> Seen:
    """What rows see of ``seen`` under a sliding window: no key that lies ``sliding`` rows or more before them.

    Args:
        sliding: None: any.
        batch, rows: of the queries, row ``first`` of their window and those behind it.
        seen: of these rows, on ``device``; where ``first`` is not 0 a number says nothing: all before is seen.
    """
    if sliding is None or first + rows <= sliding:
        return seen
    row = torch.arange(first, first + rows, dtype=torch.int32, device=device)
    begin = (row - sliding + 1).clamp_min(0)
    if isinstance(seen, Intervals):
        return Intervals(torch.maximum(seen.begin, begin), seen.end)
    end = (row + 1).clamp_min(0 if first else seen)
    return Intervals(begin.expand(batch, -1), end.expand(batch, -1))


def of_rows(seen: Seen, rows: slice, batch: int, count: int, device: torch.device) -> Intervals:
    """What the rows ``rows`` of windows of ``count`` rows see, ``seen`` being what all of them see."""
    if isinstance(seen, Intervals):
        return seen.map(lambda array: array[:, rows])
    row = torch.arange(count, dtype=torch.int32, device=device)[rows]
    end = (row + 1).clamp_min(seen).expand(batch, -1)
    return Intervals(torch.zeros_like(end), end)


@dataclass(frozen=True, slots=True)
class Reach:
    """What tiles meet, ``[batch, tiles]`` each: something from ``low`` to ``high``, everything
    from ``full_low`` to ``full_high`` (nothing is met whole where ``full_low >= full_high``)."""

    low: Tensor
    full_low: Tensor
    full_high: Tensor
    high: Tensor


def keys_of_rows(begin: Tensor, end: Tensor, size: int) -> Reach:
    """The keys that tiles of ``size`` rows see: their first and last rows say it, since both never fall."""
    first, last = _corners(begin.shape[1], size, begin.device)
    return Reach(begin[:, first], begin[:, last], end[:, first], end[:, last])


def rows_of_keys(begin: Tensor, end: Tensor, keys: int, size: int) -> Reach:
    """The rows that see tiles of ``size`` keys, of ``keys``. Key j: seen by the rows q with begin[q] <= j < end[q]."""
    corners = torch.stack(_corners(keys, size, begin.device)).to(begin.dtype)
    wanted = corners.flatten().expand(len(begin), -1).contiguous()
    # the first row that sees each corner key, and the row behind the last that does: [batch, 2, tiles]
    low = torch.searchsorted(end.contiguous(), wanted, right=True, out_int32=True).unflatten(1, (2, -1))
    high = torch.searchsorted(begin.contiguous(), wanted, right=True, out_int32=True).unflatten(1, (2, -1))
    return Reach(low[:, 0], low[:, 1], high[:, 0], high[:, 1])


def _corners(rows: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    first = torch.arange(0, rows, size, device=device)
    return first, (first + size - 1).clamp(max=rows - 1)
