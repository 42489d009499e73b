"""Held-out loss while a run goes on, on the same windows each time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from megarc.data import Batch, Stream
from megarc.parallel import all_reduce_sum
from megarc.train.engine.engine import Engine
from megarc.train.loop.feed import to_tensors


@torch.no_grad()
def heldout_loss(engine: Engine, stream: Stream, windows: int) -> float:
    """Mean negative log-likelihood, in nats a predicted token, of the stream's first ``windows`` windows.

    Every rank runs the same number of batches (ZeRO 3 gathers weights in each);
    those beyond the last window count nothing.
    """
    groups, micro_batch = engine.groups, engine.config.batch.micro_batch
    windows = min(windows, len(stream))
    ranks, rank = groups.data.size, groups.data.rank
    total = torch.zeros(2, dtype=torch.float64, device=groups.device)
    for first in range(0, windows, micro_batch * ranks):
        start = first + rank * micro_batch
        batch = _some(stream, start, min(micro_batch, windows - start), micro_batch)
        weights = torch.as_tensor(batch.weights)
        total[0] += engine.evaluate(to_tensors(batch, groups.device))
        total[1] += weights.sum()
    nll, weight = all_reduce_sum(total, groups.data).tolist()
    return nll / weight


def _some(stream: Stream, start: int, count: int, size: int) -> Batch:
    """``count`` windows from ``start`` on (none where below 1), filled up to ``size`` with weight 0."""
    read = stream.read(start, count) if count > 0 else stream.read(0, 1)
    present = max(count, 0)
    rows = np.minimum(np.arange(size), len(read.tokens) - 1)  # the last one again
    weights: npt.NDArray[np.float32] = np.zeros((size, stream.window.stride), dtype=np.float32)
    weights[:present] = 1.0 if read.weights is None else read.weights[:present]
    return Batch(
        tokens=read.tokens[rows],
        recent=read.recent[rows],
        samples=read.samples[rows],
        weights=weights,
        documents=None if read.documents is None else read.documents[rows],
        positions=None if read.positions is None else read.positions[rows],
    )
