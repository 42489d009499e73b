"""Messages between some ranks, one of a host, while the others train on: a group of its own, used by one thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Channel(Protocol):
    """What carries bytes between ranks; each names its fellows by their ranks of the world."""

    def swap(self, out: Tensor | None, to: int | None, into: Tensor | None, source: int | None) -> None:
        """Sends ``out`` [bytes] to one rank and fills ``into`` [bytes] from one, at once; None: nothing."""


class SideChannel:
    """Over gloo, whatever training uses: bytes from memory to memory of the hosts.

    All ``members`` make it together, before any engine is built: DeepSpeed makes groups on some ranks alone, and torch
    then names a later group differently on each.
    """

    def __init__(self, members: Sequence[int]) -> None:
        self._group = dist.new_group(list(members), backend="gloo", use_local_synchronization=True)

    def swap(self, out: Tensor | None, to: int | None, into: Tensor | None, source: int | None) -> None:
        works = []
        if out is not None:
            works.append(dist.isend(out, dst=to, group=self._group))
        if into is not None:
            works.append(dist.irecv(into, src=source, group=self._group))
        for work in works:
            work.wait()


def swap_words(channel: Channel, words: Any, to: int | None, source: int | None) -> Any:
    """Sends something as JSON to one rank, and gives what another one sent; None for nobody."""
    out = None if to is None else torch.frombuffer(bytearray(json.dumps(words).encode()), dtype=torch.uint8)
    size = None if source is None else torch.zeros(1, dtype=torch.int64)
    channel.swap(None if out is None else torch.tensor([out.numel()]), to, size, source)
    into = None if size is None else torch.empty(int(size), dtype=torch.uint8)
    channel.swap(out, to, into, source)
    return None if into is None else json.loads(into.numpy().tobytes())
