"""Tensor parallelism: what the ranks of a tensor group tell each other inside a layer.

Megatron-LM's pair of functions (Shoeybi et al. 2019, 1909.08053): ``enter`` a
split layer, ``leave`` it. With ``sequence`` (Korthikanti et al. 2022, 2205.05198)
each rank keeps a part of the rows between split layers, so that entering
gathers rows and leaving scatters them; attention always has all rows.

    forward | backward    enter                      leave
    sequence off          nothing | all-reduce       all-reduce | nothing
    sequence on           gather | reduce-scatter    reduce-scatter | gather
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megarc.parallel.exchange import Exchange
from megarc.parallel.groups import Group, Groups

ALONE = Group(0, 1)

# torch 2.13 renamed both, and warns under the old names, which 2.11 has alone.
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class TensorParallel:
    """A rank's place in its tensor group, handed to every layer that is split over it."""

    def __init__(
        self,
        group: Group = ALONE,
        sequence: bool = False,
        expert: Group = ALONE,
        context: Group = ALONE,
    ) -> None:
        self.group, self.sequence = group, sequence and group.size > 1
        self.expert = expert  # the data ranks that share experts with this one
        self.context = context  # the ranks that share the rows of a window with this one

    @classmethod
    def of(cls, groups: Groups) -> TensorParallel:
        """This process's place."""
        return cls(groups.tensor, groups.topology.sequence, groups.expert, groups.context)

    @property
    def rank(self) -> int:
        return self.group.rank

    @property
    def size(self) -> int:
        return self.group.size

    def enter(self, x: Tensor) -> Tensor:
        """``x`` [batch, rows (or this rank's part of them), hidden] -> all rows, for a split layer."""
        if self.size == 1:
            return x
        return _GatherRows.apply(x, self.group) if self.sequence else _Copy.apply(x, self.group)

    def leave(self, x: Tensor) -> Tensor:
        """Each rank's summand [batch, rows, hidden] -> the sum (or this rank's part of its rows)."""
        if self.size == 1:
            return x
        return _ScatterRows.apply(x, self.group) if self.sequence else _Sum.apply(x, self.group)

    def shared(self, weight: Tensor) -> Tensor:
        """A weight that all ranks hold whole and each uses on its part: its gradients are summed."""
        return weight if self.size == 1 else _Copy.apply(weight, self.group)

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks; the gradient of it is the gradient of each summand."""
        return x if self.size == 1 else _Sum.apply(x, self.group)

    def maximum(self, x: Tensor) -> Tensor:
        """The largest over ranks; without a gradient."""
        x = x.detach()
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x, dist.ReduceOp.MAX, group=self.group.handle)
        return x

    def exchange(self, counts: Tensor, rows: int) -> Exchange:
        """Of ``rows`` rows, ``counts`` [experts] of them for each expert, over the ranks that share experts."""
        return Exchange(counts, self.expert)

    def gather_last(self, x: Tensor) -> Tensor:
        """Each rank's part of the last dimension -> all of it, on every rank; without a gradient."""
        if self.size == 1:
            return x
        everyone = x.new_empty((self.size, *x.shape))
        _gather(everyone.flatten(0, 1), x.contiguous(), group=self.group.handle)
        return everyone.movedim(0, -2).flatten(-2)

    def part(self, x: Tensor, dim: int) -> Tensor:
        """This rank's part of the rows of ``x``, where rows are split between layers; else all."""
        return x.chunk(self.size, dim)[self.rank] if self.sequence else x


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _reduced(gradient, ctx.group), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return _reduced(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _scattered(gradient, ctx.group), None


class _ScatterRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return _scattered(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _gathered(gradient, ctx.group), None


def gather_into(everyone: Tensor, own: Tensor, group: Group) -> None:
    """Each rank's ``own``, one behind the other along the first dimension."""
    _gather(everyone, own, group=group.handle)


def scatter_into(own: Tensor, everyone: Tensor, group: Group) -> None:
    """This rank's part of the sum of the ranks' ``everyone``, along the first dimension."""
    _scatter(own, everyone, group=group.handle)


def _reduced(x: Tensor, group: Group) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, group=group.handle)
    return x


def _gathered(x: Tensor, group: Group) -> Tensor:
    """[batch, rows / size, hidden] of each rank -> [batch, rows, hidden]."""
    rows_first = x.transpose(0, 1).contiguous()
    everyone = rows_first.new_empty((group.size * rows_first.shape[0], *rows_first.shape[1:]))
    _gather(everyone, rows_first, group=group.handle)
    return everyone.transpose(0, 1).contiguous()


def _scattered(x: Tensor, group: Group) -> Tensor:
    """Summands [batch, rows, hidden] of each rank -> this rank's rows of their sum."""
    rows_first = x.transpose(0, 1).contiguous()
    own = rows_first.new_empty((rows_first.shape[0] // group.size, *rows_first.shape[1:]))
    _scatter(own, rows_first, group=group.handle)
    return own.transpose(0, 1).contiguous()
