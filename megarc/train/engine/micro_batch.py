"""A micro-batch as the engine takes it: the edge between numpy and torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from megarc.attention import on_device
from megarc.data import Batch
from megarc.interval import Seen, pairs_of
from megarc.train.engine.row_sharing import OwnRows, RowSharing, Shares
from megarc.window import Narrowing


class MicroBatch(NamedTuple):
    """b samples on the device.

    Attributes:
        tokens: [b, n + 1] int64.
        seen: what rows see: one number or intervals [b, n].
        weights: of the rows ``rows``, [k], none 0; None: all loss rows of the window count 1.
        samples: [b], on the host: their numbers in the order.
        positions: [b, n]; None: rows stand where their numbers say.
        rows: [k], the rows that bear loss, of 0 .. b * n - 1; None: those of the window.
        pairs: (query, key) pairs that the b samples allow, a head's mean; known on the host, for counting FLOPs.
        inputs: [b, n] int64, what the rows hold where some of it is hidden; None: ``tokens[:, :-1]``.
        kept: of a nested model, neurons of each group that take part; None: all.
        share: of these samples' loss. Where they go through the model several times, the shares sum to 1.
        loss_places: with parallel.context, [k], which of the batch's loss rows on all ranks of the group these are;
            n is then the number of this rank's rows, ``tokens[:, 1:]`` their targets.
        loss_rows: of the batch, on all ranks of the group.
    """

    tokens: Tensor
    seen: Seen
    weights: Tensor | None
    samples: npt.NDArray[np.int64]
    positions: Tensor | None = None
    rows: Tensor | None = None
    pairs: float = 0
    inputs: Tensor | None = None
    kept: int | None = None
    share: float = 1.0
    loss_places: Tensor | None = None
    loss_rows: int = 0


def to_tensors(
    batch: Batch,
    device: torch.device,
    narrowing: Narrowing | None = None,
    sharing: RowSharing | None = None,
    shares: Shares | None = None,
) -> MicroBatch:
    """``batch`` on ``device``. Where all samples have one plain window it stays a number: the fast path.

    Args:
        narrowing: the model's, for counting pairs; None: it has none.
        sharing: how a context group shares rows out: the micro-batch has this rank's rows. None: all rows.
        shares: of ``sharing`` and ``batch``, where they are known already.
    """
    if sharing is not None:
        return _own_rows(batch, sharing.own(batch, shares or sharing.shares(batch), device))

    def move(array: object) -> Tensor:
        return torch.as_tensor(array).to(device, non_blocking=True)

    seen = batch.seen()
    rows, weights = (None, None) if batch.weights is None else _weighted_rows(batch)
    return MicroBatch(
        tokens=move(batch.tokens).long(),
        seen=on_device(seen, device),
        weights=None if weights is None else move(weights),
        rows=None if rows is None else move(rows),
        positions=None if batch.positions is None else move(batch.positions),
        samples=batch.samples,
        pairs=pairs_of(seen, batch.tokens.shape[1] - 1, len(batch.tokens), narrowing or Narrowing()),
        inputs=None if batch.inputs is None else move(batch.inputs).long(),
    )


def _own_rows(batch: Batch, own: OwnRows) -> MicroBatch:
    return MicroBatch(
        tokens=own.tokens,
        seen=own.seen,
        weights=own.weights,
        samples=batch.samples,
        positions=own.positions,
        rows=own.rows,
        pairs=own.pairs,
        inputs=own.inputs,
        loss_places=own.loss_places,
        loss_rows=own.loss_rows,
    )


def _weighted_rows(batch: Batch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The rows whose weight is not 0, numbered over the batch, and their weights: [k] each. On the host, so that
    no device is waited for; the head runs on these rows alone."""
    assert batch.weights is not None
    count = batch.tokens.shape[1] - 1
    sample, row = np.nonzero(batch.weights)
    first = count - batch.weights.shape[1]
    return sample * count + first + row, batch.weights[sample, row]
