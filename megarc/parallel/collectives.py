"""What ranks tell each other outside the backward pass. A group of one answers at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from megarc.errors import ToldByAnotherRank, UserError
from megarc.parallel.groups import Group
from megarc.parallel.rank_check import differences
from megarc.parallel.rendezvous import describe_ranks

ObjectT = TypeVar("ObjectT")


def all_reduce_sum(tensor: torch.Tensor, group: Group) -> torch.Tensor:
    """The sum of ``tensor`` over the group, in place."""
    return _all_reduced(tensor, dist.ReduceOp.SUM, group)


def all_reduce_max(tensor: torch.Tensor, group: Group) -> torch.Tensor:
    """The largest of each element of ``tensor`` over the group, in place."""
    return _all_reduced(tensor, dist.ReduceOp.MAX, group)


def _all_reduced(tensor: torch.Tensor, operation: Any, group: Group) -> torch.Tensor:
    if group.size > 1:
        # Of a slice with gaps, gloo reduces what lies in memory from its first element on, gaps included.
        dense = tensor.contiguous()
        dist.all_reduce(dense, op=operation, group=group.handle)
        if dense is not tensor:
            tensor.copy_(dense)
    return tensor


def first_to_last(tensor: torch.Tensor, group: Group) -> torch.Tensor | None:
    """The first rank's ``tensor`` on the last one, which gives one of the same shape; None elsewhere.

    Ranks between them need not call it.
    """
    if group.rank not in (0, group.size - 1):
        return None
    first, last = (0, group.size - 1)
    if group.handle is not None:
        first, last = (dist.get_global_rank(group.handle, rank) for rank in (first, last))
    if group.rank == 0:
        dist.send(tensor.contiguous(), dst=last, group=group.handle)
        return None
    received = torch.empty_like(tensor)
    dist.recv(received, src=first, group=group.handle)
    return received


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


def together(action: Callable[[], ObjectT], group: Group) -> ObjectT:
    """What ``action`` gives on each rank; where it raises a UserError on any, it is raised on all.

    Nobody then waits in a collective for a rank that is gone. The lowest rank that met it speaks.
    """
    error, value = None, None
    try:
        value = action()
    except UserError as problem:
        error = str(problem)
    errors = gather_objects(error, group)
    failed = [rank for rank, text in enumerate(errors) if text is not None]
    if not failed:
        return value  # type: ignore[return-value]
    where = f" (rank {describe_ranks(failed)} of {group.size})" if len(failed) < group.size else ""
    kind = UserError if group.rank == failed[0] else ToldByAnotherRank
    raise kind(f"{errors[failed[0]]}{where}")


def agree(facts: dict[str, str], group: Group) -> None:
    """Checks that every rank has the same ``facts``.

    Raises:
        UserError: on all ranks, naming the fact and the ranks that differ from most.
    """
    gathered = gather_objects(facts, group)
    differing = differences(gathered)
    if differing:
        kind = UserError if group.rank == 0 else ToldByAnotherRank
        raise kind("ranks do not agree:\n         " + "\n         ".join(differing))
