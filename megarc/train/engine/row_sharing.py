"""The rows of a batch that a rank of a context group computes: the edge between numpy and torch, of some rows alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from megarc.data import Batch
from megarc.interval import Intervals
from megarc.model import loss_work_of
from megarc.parallel import Group, Groups, RankRows
from megarc.row_shares import Numbers, row_shares, work_of_rows
from megarc.train.config import RunConfig
from megarc.window import Narrowing


class Shares(NamedTuple):
    """How the rows of a batch are shared out; every rank of the group finds the same.

    Attributes:
        rows: [n], the rows of rank 0, of rank 1 and so on, each ascending.
        weights: [b, n] of all rows; None: each loss row counts 1.
        bears: [b, n], whether a row bears loss.
    """

    rows: Numbers
    weights: npt.NDArray[np.float32] | None
    bears: npt.NDArray[np.bool_]


class OwnRows(NamedTuple):
    """What a micro-batch of a context rank is made of, [b, m] of m own rows unless it says otherwise; on the device.

    Attributes:
        tokens: [b, m + 1] int64; behind the first column each row's target.
        inputs: int64, what the rows hold.
        rows: [k], those that bear loss, of 0 .. b * m - 1.
        weights: [k]; None: all 1.
        loss_places: [k], which of all loss rows of the batch, on any rank, they are.
        loss_rows: of the batch, on all ranks.
        pairs: (query, key) pairs that own rows allow, a head's mean; on the host.
    """

    tokens: Tensor
    inputs: Tensor
    seen: RankRows
    positions: Tensor
    rows: Tensor
    weights: Tensor | None
    loss_places: Tensor
    loss_rows: int
    pairs: float


@dataclass(frozen=True)
class RowSharing:
    """How a context group shares rows out.

    Attributes:
        stride: loss rows of a window whose batches have no weights, its last ones.
        loss_work: what the head does for a loss row, in (query, key) pairs of all layers' attention.
        narrowing: how the model's attention sees less than the window allows.
    """

    group: Group
    stride: int
    loss_work: int = 0
    narrowing: Narrowing = field(default_factory=Narrowing)

    @classmethod
    def of(cls, config: RunConfig, groups: Groups) -> RowSharing | None:
        """Of a resolved configuration; None where each rank has all rows."""
        if groups.context.size == 1:
            return None
        model = config.model
        return cls(groups.context, config.window.build().stride, loss_work_of(model), model.narrowing)

    def shares(self, batch: Batch) -> Shares:
        """Who takes which rows of ``batch``."""
        samples, rows = batch.tokens.shape[0], batch.tokens.shape[1] - 1
        weights = None
        if batch.weights is None:
            bears = np.zeros((samples, rows), dtype=np.bool_)
            bears[:, rows - self.stride :] = True
        else:
            weights = np.zeros((samples, rows), dtype=np.float32)
            weights[:, rows - batch.weights.shape[1] :] = batch.weights
            bears = weights != 0
        loss = bears.sum(axis=0, dtype=np.int64) * self.loss_work
        work = work_of_rows(batch.seen(), rows, samples, self.narrowing, loss)
        return Shares(np.concatenate(row_shares(work, self.group.size)), weights, bears)

    def own(self, batch: Batch, shares: Shares, device: torch.device) -> OwnRows:
        """This rank's rows of ``batch``."""

        def move(array: npt.NDArray[np.generic]) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array)).to(device, non_blocking=True)

        samples, rows = shares.bears.shape
        count = rows // self.group.size
        own = shares.rows[self.group.rank * count : (self.group.rank + 1) * count]
        places = np.empty(rows, dtype=np.int64)
        places[shares.rows] = np.arange(rows)
        seen = self._seen(batch, own)
        sample, row = np.nonzero(shares.bears[:, own])
        window_row = own[row]
        in_batch = np.flatnonzero(shares.bears)
        inputs = batch.tokens[:, :-1] if batch.inputs is None else batch.inputs
        positions = np.tile(own, (samples, 1)) if batch.positions is None else batch.positions[:, own]
        tokens = np.zeros((samples, count + 1), dtype=np.int64)
        tokens[:, 1:] = batch.tokens[:, own + 1]
        return OwnRows(
            tokens=move(tokens),
            inputs=move(inputs[:, own]).long(),
            seen=RankRows(move(seen.begin), move(seen.end), move(own), move(places), self.group),
            positions=move(positions),
            rows=move(sample * count + row),
            weights=None if shares.weights is None else move(shares.weights[sample, window_row]),
            loss_places=move(np.searchsorted(in_batch, sample * rows + window_row)),
            loss_rows=len(in_batch),
            pairs=float(work_of_rows(batch.seen(), rows, samples, self.narrowing)[own].sum()),
        )

    def _seen(self, batch: Batch, own: Numbers) -> Intervals:
        """What own rows see, [b, m] of int32."""
        seen = batch.seen()
        if isinstance(seen, Intervals):
            return seen.map(lambda array: array[:, own])
        shape = (len(batch.tokens), len(own))
        end = np.maximum(own + 1, seen).astype(np.int32)
        return Intervals(np.zeros(shape, dtype=np.int32), np.tile(end, (len(batch.tokens), 1)))
