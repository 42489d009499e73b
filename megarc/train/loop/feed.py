"""The edge between numpy and torch: batches of the order become micro-batches on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from megarc.attention import on_device
from megarc.data import Ahead, Batch, Gaps, Stream, around, part_of_step
from megarc.interval import Intervals, Seen
from megarc.parallel import Groups
from megarc.train.heartbeat import Heartbeat
from megarc.train.loop.timeline import Timeline


class MicroBatch(NamedTuple):
    """b samples on the device.

    Attributes:
        tokens: [b, n + 1] int64.
        seen: what rows see: one number or intervals [b, n].
        weights: of the rows ``rows``, [k], none 0; None: all loss rows of the window count 1.
        samples: [b], on the host: their numbers in the order.
        positions: [b, n]; None: rows stand where their numbers say.
        rows: [k], the rows that bear loss, of 0 .. b * n - 1; None: those of the window.
    """

    tokens: Tensor
    seen: Seen
    weights: Tensor | None
    samples: npt.NDArray[np.int64]
    positions: Tensor | None = None
    rows: Tensor | None = None

    def intervals(self) -> Intervals:
        """What rows see, as intervals even where one number says it."""
        if isinstance(self.seen, Intervals):
            return self.seen
        count, rows = len(self.tokens), self.tokens.shape[1] - 1
        made = Intervals.of(rows, np.full(count, self.seen, dtype=np.int32))
        return on_device(made, self.tokens.device)


def to_tensors(batch: Batch, device: torch.device) -> MicroBatch:
    """``batch`` on ``device``. Where all samples have one plain window it stays a number: the fast path."""

    def move(array: object) -> Tensor:
        return torch.as_tensor(array).to(device, non_blocking=True)

    rows, weights = (None, None) if batch.weights is None else _weighted_rows(batch)
    return MicroBatch(
        tokens=move(batch.tokens).long(),
        seen=on_device(batch.seen(), device),
        weights=None if weights is None else move(weights),
        rows=None if rows is None else move(rows),
        positions=None if batch.positions is None else move(batch.positions),
        samples=batch.samples,
    )


def _weighted_rows(batch: Batch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The rows whose weight is not 0, numbered over the batch, and their weights: [k] each. On the host, so that
    no device is waited for; the head runs on these rows alone."""
    assert batch.weights is not None
    count = batch.tokens.shape[1] - 1
    sample, row = np.nonzero(batch.weights)
    first = count - batch.weights.shape[1]
    return sample * count + first + row, batch.weights[sample, row]


def steps(
    stream: Stream,
    groups: Groups,
    timeline: Timeline,
    micro_batch: int,
    gaps: Gaps,
    heartbeat: Heartbeat,
    *,
    first: int,
    total: int,
) -> Iterator[list[MicroBatch]]:
    """This rank's micro-batches of steps ``first .. total-1``, read by a thread one step ahead.

    Args:
        gaps: samples that are left out.
        heartbeat: told while this waits for the data, and when the thread reads.
    """
    data, batches = groups.data, timeline.batches

    def count(step: int) -> int:
        return batches.size(step) // (data.size * micro_batch)

    requests = (
        request
        for step in range(first, total)
        for request in part_of_step(
            batches.samples_before(step), batches.size(step), data.rank, data.size, micro_batch
        )
    )
    depth = max((count(step) for step in (first, total - 1) if first < total), default=1)
    # One is being read, ``depth`` are ready, one is being copied to the device.
    slots = Slots(depth + 2, (micro_batch, stream.window.tokens), groups.device)
    read_around = around(stream.read, gaps)

    def read(begin: int, length: int) -> Batch:
        heartbeat.pass_by("reading")
        runs = gaps.runs(begin, length)
        if len(runs) == 1:
            return stream.read(*runs[0], out=slots.next())
        batch, slot = read_around(begin, length), slots.next()
        slot[:] = batch.tokens
        return replace(batch, tokens=slot)

    with Ahead(read, requests, depth=depth) as ahead:
        for step in range(first, total):
            heartbeat.step = step + 1
            heartbeat.enter("waiting for data")
            micro_batches = []
            for _ in range(count(step)):
                micro_batches.append(to_tensors(next(ahead), groups.device))
                slots.sent()
            yield micro_batches


class Slots:
    """Host memory that tokens pass through, used in turn again and again; page-locked for a GPU.

    From page-locked memory a copy to the device goes on by itself, while the host goes on; a slot waits
    for its copy before it is filled again. The reading thread fills, the training one sends, in the same order.
    """

    def __init__(self, count: int, shape: tuple[int, int], device: torch.device) -> None:
        pinned = device.type == "cuda"
        self.slots = [torch.empty(shape, dtype=torch.int32, pin_memory=pinned) for _ in range(count)]
        self.copied = [torch.cuda.Event() if pinned else None for _ in range(count)]
        self._filled = self._sent = 0

    def next(self) -> npt.NDArray[np.int32]:
        """The slot that was sent longest ago, to be filled: [micro-batch, n + 1]."""
        place = self._filled % len(self.slots)
        if (event := self.copied[place]) is not None:
            event.synchronize()  # done at once where it was never recorded
        self._filled += 1
        return self.slots[place].numpy()

    def sent(self) -> None:
        """The copy of the next filled slot has been asked for."""
        if (event := self.copied[self._sent % len(self.slots)]) is not None:
            event.record()
        self._sent += 1
