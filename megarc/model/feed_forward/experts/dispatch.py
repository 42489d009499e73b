"""Bringing rows to their experts and back, by permutations alone: no sum depends on the order of threads.

A gather whose gradient is torch's own would add rows up by atomic operations on a GPU. Here both directions gather:
a row's k copies are known, so their sum is taken in a fixed order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Dispatch(NamedTuple):
    """Which of ``rows * k`` assignments stands where, sorted by expert.

    Attributes:
        order: [rows * k]; the place p of the sorted assignments holds assignment ``order[p]``, of row
            ``order[p] // k``.
        place: [rows, k]; where each assignment stands among the sorted ones.
    """

    order: Tensor
    place: Tensor

    @classmethod
    def of(cls, chosen: Tensor) -> Dispatch:
        """``chosen`` [rows, k]: the experts of each row. Assignments of one expert keep the order of their rows."""
        order = torch.sort(chosen.flatten(), stable=True).indices
        numbers = torch.arange(order.numel(), device=order.device)
        place = torch.empty_like(order).scatter_(0, order, numbers)
        return cls(order, place.view(chosen.shape))

    def spread(self, x: Tensor) -> Tensor:
        """``x`` [rows, width] -> [rows * k, width], sorted by expert."""
        return _Spread.apply(x, *self)

    def collect(self, y: Tensor) -> Tensor:
        """``y`` [rows * k, width], sorted by expert -> the sum of each row's k, [rows, width]."""
        return _Collect.apply(y, *self)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(order, place)
        return _spread(x, order, place)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _collect(gradient, *ctx.saved_tensors), None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, order: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(order, place)
        return _collect(y, order, place)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _spread(gradient, *ctx.saved_tensors), None, None


def _spread(x: Tensor, order: Tensor, place: Tensor) -> Tensor:
    return x.index_select(0, order // place.shape[1])


def _collect(y: Tensor, order: Tensor, place: Tensor) -> Tensor:
    if place.shape[1] == 1:
        return y.index_select(0, place[:, 0])
    return y.index_select(0, place.flatten()).view(*place.shape, -1).sum(1)
