"""Batches of the order become micro-batches on the device, read one step ahead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from megarc.data import Ahead, Batch, Gaps, Stream, announcing, around, part_of_step
from megarc.parallel import Groups
from megarc.train.engine import MicroBatch, RowSharing, Shares, to_tensors
from megarc.train.heartbeat import Heartbeat
from megarc.train.schedule import Timeline
from megarc.window import Narrowing


def steps(
    stream: Stream,
    groups: Groups,
    timeline: Timeline,
    micro_batch: int,
    gaps: Gaps,
    heartbeat: Heartbeat,
    *,
    vocabulary: int,
    first: int,
    total: int,
    narrowing: Narrowing | None = None,
    sharing: RowSharing | None = None,
    announced: int = 0,
) -> Iterator[list[MicroBatch]]:
    """This rank's micro-batches of steps ``first .. total-1``, read by a thread one step ahead.

    Args:
        gaps: samples that are left out.
        vocabulary: of the model; an id beyond it ends the run before its step, with its place.
        narrowing: the model's, for counting FLOPs.
        sharing: how a context group shares rows out. The thread reads whole windows, since what a row sees may depend
            on any token's document; it is 4 bytes a token. To the device goes what this rank's rows need.
        announced: steps whose samples a source far away hears of before the step that is being read.
        heartbeat: where this says that it waits for data, and the thread that it reads.
    """
    data, batches = groups.data, timeline.batches

    def count(step: int) -> int:
        return batches.size(step) // (data.size * micro_batch)

    requests: Iterator[tuple[int, int]] = (
        request
        for step in range(first, total)
        for request in part_of_step(
            batches.samples_before(step), batches.size(step), data.rank, data.size, micro_batch
        )
    )
    depth = max((count(step) for step in (first, total - 1) if first < total), default=1)
    if stream.far and announced:

        def announce(begin: int, length: int) -> None:
            for run in gaps.runs(begin, length):
                stream.announce(*run)

        requests = announcing(requests, announce, announced * depth)
    # One is being read, ``depth`` are ready, one is being copied to the device.
    slots = Slots(depth + 2, (micro_batch, stream.longest), groups.device)
    read_around = around(stream.read, gaps)

    def read(begin: int, length: int) -> tuple[Batch, Shares | None]:
        batch = read_batch(begin, length)
        return batch, None if sharing is None else sharing.shares(batch)

    def read_batch(begin: int, length: int) -> Batch:
        heartbeat.pass_by("reading")
        runs = gaps.runs(begin, length)
        if len(runs) == 1:
            batch = stream.read(*runs[0], out=slots.next())
            stream.check_ids(batch, vocabulary)
            return batch
        batch = read_around(begin, length)
        slot = slots.next()[:, : batch.tokens.shape[1]]
        stream.check_ids(batch, vocabulary)
        slot[:] = batch.tokens
        return replace(batch, tokens=slot)

    with Ahead(read, requests, depth=depth) as ahead:
        for step in range(first, total):
            heartbeat.step = step + 1
            heartbeat.enter("waiting for data")
            micro_batches = []
            for _ in range(count(step)):
                samples, shares = next(ahead)
                batch = to_tensors(samples, groups.device, narrowing, sharing, shares)
                slots.sent()
                micro_batches += [
                    batch._replace(kept=width.kept, share=width.share) for width in timeline.widths(step)
                ]
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
