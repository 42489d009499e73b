"""Ranges of samples that a run leaves out on purpose, because they broke it.

What a run counts is samples *consumed*: 0, 1, 2, ... without holes. Just before
reading, that number becomes a sample of the order, which steps over the gaps
and counts from where the run's phase began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from megarc.data.batches import Batch
from megarc.errors import UserError


@dataclass(frozen=True, slots=True)
class Gaps:
    """Disjoint ranges ``[begin, end)`` of the order's samples, sorted, none empty, none touching.

    ``begin`` is how many samples were consumed before sample 0 of the order; below 0 where another run has read
    some of the order already.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    begin: int = 0

    @classmethod
    def of(cls, ranges: Iterable[Iterable[int]], begin: int = 0) -> Gaps:
        """Any ranges, put in order and merged."""
        merged: list[tuple[int, int]] = []
        for left, right in sorted((int(left), int(right)) for left, right in ranges):
            if left >= right:
                continue
            if merged and left <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(right, merged[-1][1]))
            else:
                merged.append((left, right))
        return cls(tuple(merged), begin)

    def runs(self, first: int, count: int) -> list[tuple[int, int]]:
        """Samples consumed ``first .. first + count - 1``, as (sample, how many) of the order."""
        begin = first - self.begin
        found = []
        for left, right in self.ranges:
            if begin < left and count:
                here = min(count, left - begin)
                found.append((begin, here))
                begin, count = begin + here, count - here
            if begin >= left:
                begin += right - left
        if count:
            found.append((begin, count))
        return found

    def and_also(self, first: int, count: int) -> Gaps:
        """With the samples that were consumed as ``first .. first + count - 1`` left out too."""
        more = [(begin, begin + length) for begin, length in self.runs(first, count)]
        return Gaps.of([*self.ranges, *more], self.begin)


def around(read: Callable[[int, int], Batch], gaps: Gaps) -> Callable[[int, int], Batch]:
    """``read``, asked for samples consumed: it steps over the gaps."""

    def read_runs(first: int, count: int) -> Batch:
        return joined([read(begin, length) for begin, length in gaps.runs(first, count)])

    return read_runs


def joined(batches: list[Batch]) -> Batch:
    """One batch of all their samples."""
    if len(batches) == 1:
        return batches[0]
    if any(batch.tokens.shape[1] != batches[0].tokens.shape[1] for batch in batches):
        raise UserError(
            "window.stages: samples that were left out make a micro-batch of two windows; start anew from an "
            "earlier checkpoint in another folder (start_from), with the stage some steps later"
        )
    weights = [batch.weights for batch in batches if batch.weights is not None]
    documents = [batch.documents for batch in batches if batch.documents is not None]
    positions = [batch.positions for batch in batches if batch.positions is not None]
    recent_ends = [batch.recent_end for batch in batches if batch.recent_end is not None]
    return Batch(
        tokens=np.concatenate([batch.tokens for batch in batches]),
        recent=np.concatenate([batch.recent for batch in batches]),
        samples=np.concatenate([batch.samples for batch in batches]),
        weights=np.concatenate(weights) if weights else None,
        documents=np.concatenate(documents) if documents else None,
        positions=np.concatenate(positions) if positions else None,
        recent_end=np.concatenate(recent_ends) if recent_ends else None,
        inputs=np.concatenate(
            [batch.tokens[:, :-1] if batch.inputs is None else batch.inputs for batch in batches]
        )
        if any(batch.inputs is not None for batch in batches)
        else None,
    )
