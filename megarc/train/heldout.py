"""Held-out loss while a run goes on, on the same windows each time."""

from __future__ import annotations

import torch

from megarc.data import Stream
from megarc.model import weighted_sum
from megarc.parallel import Groups, all_reduce_sum
from megarc.train.engine import Engine
from megarc.train.feed import to_tensors


@torch.no_grad()
def heldout_loss(engine: Engine, stream: Stream, groups: Groups, windows: int, micro_batch: int) -> float:
    """Mean negative log-likelihood, in nats a predicted token, of the stream's first ``windows`` windows.

    Every rank runs the same number of batches (ZeRO 3 gathers weights in each);
    those beyond the last window count nothing.
    """
    windows = min(windows, len(stream))
    ranks, rank = groups.data.size, groups.data.rank
    total = torch.zeros(2, dtype=torch.float64, device=groups.device)
    engine.model.eval()
    for first in range(0, windows, micro_batch * ranks):
        start = first + rank * micro_batch
        count = min(micro_batch, windows - start)
        batch = to_tensors(stream.read(start if count > 0 else 0, max(count, 1)), groups.device)
        rows = engine.model(batch.tokens, engine.loss_rows, batch.recent, batch.documents)
        if count > 0:
            weight = rows.nll.numel() if batch.weights is None else batch.weights.sum()
            total += torch.stack([weighted_sum(rows, batch.weights, 0.0), torch.as_tensor(weight)]).to(total)
    engine.model.train()
    nll, weight = all_reduce_sum(total, groups.data).tolist()
    return nll / weight
