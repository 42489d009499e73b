"""Context parallelism: ranks share the rows of a window, and each reads the keys and values of all of them.

    forward   each rank's keys and values gathered        backward  gradients summed, each rank keeps its rows'

So a rank attends with its own rows to the whole window, exactly, whatever mask it has. docs/long-windows.md says why
not a ring, and what travels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from megarc.interval import Intervals
from megarc.parallel.groups import Group
from megarc.parallel.tensor import gather_into, scatter_into


@dataclass(frozen=True)
class RankRows(Intervals):
    """What the rows see that this rank of a context group has of a window, and where the window's other rows are.

    Attributes:
        begin, end: of these rows, ``[batch, m]``, in the window's numbers.
        numbers: the rows' numbers in the window, ascending, ``[m]``.
        places: where the window's row i lies among the rows of all ranks, rank after rank, ``[n]``.
        group: the ranks that share the window; each has m = n / size rows.
    """

    numbers: Tensor
    places: Tensor
    group: Group

    @property
    def row_numbers(self) -> Tensor:
        """``numbers`` in the type of intervals."""
        return self.numbers.to(self.begin.dtype)

    def under(self, sliding: int | None) -> RankRows:
        """The same under a sliding window: no key that lies ``sliding`` rows or more before its row is seen."""
        if sliding is None or sliding >= len(self.places):
            return self
        first = self.row_numbers - sliding + 1
        return replace(self, begin=torch.maximum(self.begin, first))

    def of_window(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of this rank's rows -> of the whole window, in its order.

        ``[batch, heads, m, head_dim]`` each -> ``[batch, heads, n, head_dim]``.
        """
        both: Tensor = _Window.apply(torch.stack((k, v)), self)
        keys, values = both.unbind(0)
        return keys, values

    def gather(self, everyone: Tensor, own: Tensor) -> None:
        """Fills ``everyone`` with each rank's ``own``, one behind the other."""
        gather_into(everyone, own, self.group)

    def scatter(self, own: Tensor, everyone: Tensor) -> None:
        """Fills ``own`` with this rank's part of the sum of all ranks' ``everyone``."""
        scatter_into(own, everyone, self.group)


class _Window(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, rows: RankRows) -> Tensor:
        ctx.rows = rows
        rows_first = own.movedim(3, 0).contiguous()  # [m, 2, batch, heads, head_dim]
        everyone = rows_first.new_empty((len(rows.places), *rows_first.shape[1:]))
        rows.gather(everyone, rows_first)
        return everyone[rows.places].movedim(0, 3)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows = ctx.rows
        everyone = gradient.new_empty((len(rows.places), *gradient.shape[:3], gradient.shape[4]))
        everyone[rows.places] = gradient.movedim(3, 0)
        own = everyone.new_empty((len(rows.numbers), *everyone.shape[1:]))
        rows.scatter(own, everyone)
        return own.movedim(0, 3), None
