"""Whether ranks can talk, along each parallel dimension, and which link is slow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_high
from typing import Literal

import torch
import torch.distributed as dist

from megarc.parallel.collectives import gather_objects
from megarc.parallel.groups import Group, Groups

_ELEMENTS = 1 << 18  # 1 MiB of float32
_ROUNDS = 3  # the first one also opens connections; the fastest counts
_SLOW = 4.0  # times slower than others of its kind

Kind = Literal["all-reduce", "send"]


@dataclass(frozen=True, slots=True)
class Link:
    """A group's all-reduce, or a send from one rank to the next of its group.

    Attributes:
        seconds: for 1 MiB.
        slow: whether it takes much longer than others of its kind along this dimension.
    """

    dimension: str
    kind: Kind
    ranks: tuple[int, ...]
    hosts: tuple[str, ...]
    seconds: float
    slow: bool = False

    @property
    def rate(self) -> float:
        """Bytes of payload a second."""
        return 4 * _ELEMENTS / self.seconds

    def describe(self) -> str:
        ends = " -> " if self.kind == "send" else ", "
        names = ends.join(f"rank {rank} ({host})" for rank, host in zip(self.ranks, self.hosts, strict=True))
        return f"{self.dimension} {self.kind} {names}: {1e3 * self.seconds:.1f} ms for 1 MiB"


def check_links(groups: Groups, hosts: Sequence[str]) -> list[Link]:
    """Times an all-reduce of each group and a send around its ring; all ranks, on rank 0 (elsewhere: nothing).

    Args:
        hosts: of all ranks, on rank 0.

    Raises:
        RuntimeError: where a group's sum is wrong, or ranks cannot reach each other.
    """
    found: list[Link] = []
    for dimension in ("tensor", "data", "pipeline"):
        group: Group = getattr(groups, dimension)
        sizes = {"tensor": groups.topology.tensor, "data": groups.topology.data}
        if sizes.get(dimension, groups.topology.pipeline) == 1:
            continue
        times = _fastest(_reduce, groups, group), _fastest(_ring, groups, group)
        found += _links(groups, dimension, gather_objects(times, groups.world), hosts)
    return [_judged(link, found) for link in found]


def _links(
    groups: Groups, dimension: str, times: list[tuple[float, float]], hosts: Sequence[str]
) -> list[Link]:
    if not groups.first:
        return []
    found = []
    for ranks in groups.topology.groups(dimension):  # type: ignore[arg-type]
        of = tuple(hosts[rank] for rank in ranks)
        slowest = max(times[rank][0] for rank in ranks)
        found.append(Link(dimension, "all-reduce", tuple(ranks), of, slowest))
        for place, rank in enumerate(ranks):
            before = ranks[place - 1]
            ends = (before, rank), (hosts[before], hosts[rank])
            found.append(Link(dimension, "send", *ends, times[rank][1]))
    return found


def _judged(link: Link, links: Sequence[Link]) -> Link:
    """``link``, marked slow where it is far behind the others that go equally far."""

    def sort(one: Link) -> tuple[str, str, bool]:
        return one.dimension, one.kind, len(set(one.hosts)) > 1

    usual = median_high(one.rate for one in links if sort(one) == sort(link))
    return Link(link.dimension, link.kind, link.ranks, link.hosts, link.seconds, link.rate * _SLOW < usual)


def _fastest(action: Callable[[Groups, Group], list[dist.Work]], groups: Groups, group: Group) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        dist.barrier(group=groups.world.handle)
        start = time.perf_counter()
        unfinished = action(groups, group)
        if groups.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
        for work in unfinished:
            work.wait()
    return best


def _reduce(groups: Groups, group: Group) -> list[dist.Work]:
    data = torch.full((_ELEMENTS,), float(group.rank + 1), device=groups.device)
    dist.all_reduce(data, group=group.handle)
    expected = group.size * (group.size + 1) / 2
    if not bool((data == expected).all()):
        raise RuntimeError(f"an all-reduce over {group.size} ranks gave {data[0]} instead of {expected}")
    return []


def _ring(groups: Groups, group: Group) -> list[dist.Work]:
    """Each rank hears the one before it, and sends to the next: that may still be on its way."""
    out = torch.full((_ELEMENTS,), float(group.rank), device=groups.device)
    heard = torch.empty_like(out)

    def rank(place: int) -> int:
        place %= group.size
        return place if group.handle is None else dist.get_global_rank(group.handle, place)

    *sending, hearing = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, out, rank(group.rank + 1), group.handle),
            dist.P2POp(dist.irecv, heard, rank(group.rank - 1), group.handle),
        ]
    )
    hearing.wait()
    if not bool((heard == (group.rank - 1) % group.size).all()):
        raise RuntimeError(f"rank {rank(group.rank - 1)} sent {group.rank - 1}, and {heard[0]} came")
    return sending
