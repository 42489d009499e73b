"""Losses of a trained model on samples of a source, each with its own R and weights: packed rows, tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from megarc.data import Batch, Stream
from megarc.errors import UserError
from megarc.inference.own_rows import row_losses
from megarc.inference.score import ratio_error
from megarc.interval import Intervals, Seen
from megarc.model import Transformer

Sums: TypeAlias = npt.NDArray[np.float64]

_BLOCKS = 64  # of consecutive samples, from which errors come


@dataclass(frozen=True, slots=True)
class SampleLosses:
    """Weighted losses of samples [samples] in nats, and their weights."""

    sums: Sums
    weights: Sums

    @property
    def nats(self) -> float:
        """Nats a target."""
        return float(self.sums.sum() / self.weights.sum())

    @property
    def error(self) -> float:
        """Of ``nats``: from blocks of consecutive samples."""
        return _error(self.sums, self.weights)

    def above(self, other: SampleLosses) -> tuple[float, float]:
        """How many nats a target this lies above ``other``, sample by sample, and the error of that."""
        more = self.sums - other.sums
        return float(more.sum() / self.weights.sum()), _error(more, self.weights)


def sample_losses(
    model: Transformer,
    stream: Stream,
    count: int,
    *,
    recents: Sequence[int | None] = (None,),
    batch: int = 32,
    progress: Callable[[int], None] | None = None,
) -> list[SampleLosses]:
    """The first ``count`` samples of a held-out ``stream``, scored under one mask after the other.

    Args:
        recents: the most rows of R that a sample (in packed rows: a document) has; None: those that it gives.
        progress: called with how many samples more are scored.

    Raises:
        UserError: where the stream is empty, or of another vocabulary.
    """
    count = min(count, len(stream))
    if count < 1:
        raise UserError("there is no sample to score; give another source")
    found: list[list[Sums]] = [[] for _ in recents]
    weights: list[Sums] = []
    for first in range(0, count, batch):
        read = stream.read(first, min(batch, count - first))
        stream.check_ids(read, model.config.tokens)
        rows = read.tokens.shape[1] - 1
        weight = np.ones((len(read.tokens), stream.window.stride)) if read.weights is None else read.weights
        weights.append(weight.sum(1).astype(np.float64))
        for sums, recent in zip(found, recents, strict=True):
            own = slice(rows - weight.shape[1], rows)
            with torch.inference_mode():
                nll = row_losses(model, read.tokens, own, _limited(read, recent), read.positions)
            sums.append((nll.double().cpu().numpy() * weight).sum(1))
        if progress is not None:
            progress(len(read.tokens))
    whole = np.concatenate(weights)
    if not whole.any():
        raise UserError("no row of the samples bears loss; give another source")
    return [SampleLosses(np.concatenate(sums), whole) for sums in found]


def _limited(batch: Batch, recent: int | None) -> Seen:
    """What rows see where no R has more than ``recent`` rows."""
    if recent is None:
        return batch.seen()
    rows = batch.tokens.shape[1] - 1
    given: npt.NDArray[np.int32] = np.full(len(batch.tokens), recent, dtype=np.int32)
    if batch.documents is None and batch.recent_end is None:
        return int(recent)
    ends = None
    if batch.recent_end is not None:
        begin = Intervals.of(rows, given, batch.documents).begin
        ends = np.minimum(batch.recent_end, begin + recent)
    return Intervals.of(rows, given, batch.documents, ends)


def _error(sums: Sums, weights: Sums) -> float:
    """Of a mean of sums over weights, from blocks of samples."""
    block: npt.NDArray[np.int64] = np.arange(len(sums)) * min(_BLOCKS, len(sums)) // len(sums)
    return ratio_error(*(np.bincount(block, each) for each in (sums, weights)))
