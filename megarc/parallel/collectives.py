"""What ranks tell each other outside the backward pass. A group of one answers at once."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist

from megarc.parallel.groups import Group

ObjectT = TypeVar("ObjectT")


def all_reduce_sum(tensor: torch.Tensor, group: Group) -> torch.Tensor:
    """The sum of ``tensor`` over the group, in place."""
    if group.size > 1:
        dist.all_reduce(tensor, group=group.handle)
    return tensor


def broadcast_object(value: ObjectT, group: Group) -> ObjectT:
    """Rank 0's ``value``, on every rank of the group."""
    if group.size == 1:
        return value
    box: list[Any] = [value]
    source = 0 if group.handle is None else dist.get_global_rank(group.handle, 0)
    dist.broadcast_object_list(box, src=source, group=group.handle)
    return box[0]


def gather_objects(value: ObjectT, group: Group) -> list[ObjectT]:
    """Every rank's ``value``, in the order of ranks, on every rank."""
    if group.size == 1:
        return [value]
    box: list[Any] = [None] * group.size
    dist.all_gather_object(box, value, group=group.handle)
    return box
