"""Rows that ranks of a group send each other, as many as each has for each, and the same way back.

Shapes depend on what was chosen, so the host reads how many rows travel before they do.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megarc.parallel.groups import Group


class Exchange:
    """One all-to-all with uneven counts, and its reverse; both differentiable."""

    def __init__(self, counts: Tensor, group: Group) -> None:
        """
        Args:
            counts: [ranks * k], rows that this rank has for each of k receivers (experts) on every rank, rank by rank.
        """
        self.group = group
        sent = counts.view(group.size, -1)
        received = self._counts(sent)
        self.received = received  # [ranks, k]: of each rank, rows for each of this rank's receivers
        self._given, self._got = sent.sum(1).tolist(), received.sum(1).tolist()

    @property
    def came(self) -> int:
        """Rows that come to this rank."""
        return sum(self._got)

    def _counts(self, sent: Tensor) -> Tensor:
        """[ranks, k] that this rank has for others -> what they have for it."""
        received = torch.empty_like(sent)
        one_each = [1] * self.group.size
        dist.all_to_all_single(received, sent.contiguous(), one_each, one_each, group=self.group.handle)
        return received

    def there(self, rows: Tensor) -> Tensor:
        """``rows`` [rows, width], sorted by receiver -> what came to this rank, rank after rank."""
        return _AllToAll.apply(rows, self._given, self._got, self.group)

    def back(self, rows: Tensor) -> Tensor:
        """The reverse: what this rank made of the rows that came -> those of its own rows, in their order."""
        return _AllToAll.apply(rows, self._got, self._given, self.group)


class _AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, given: list[int], got: list[int], group: Group) -> Tensor:
        ctx.given, ctx.got, ctx.group = given, got, group
        return _exchanged(rows, given, got, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchanged(gradient, ctx.got, ctx.given, ctx.group), None, None, None


def _exchanged(rows: Tensor, given: list[int], got: list[int], group: Group) -> Tensor:
    found = rows.new_empty(sum(got), *rows.shape[1:])
    dist.all_to_all_single(found, rows.contiguous(), got, given, group=group.handle)
    return found


class EvenExchange(Exchange):
    """Every rank sends as many rows to each: what a dry run and the planner assume, since their rows have no values."""

    def __init__(self, counts: Tensor, rows: int, group: Group) -> None:
        """
        Args:
            rows: that this rank has for all receivers together.
        """
        self.group = group
        self.received = self._counts(counts.view(group.size, -1))
        least, more = divmod(rows, group.size)
        self._given = self._got = [least + (rank < more) for rank in range(group.size)]
