"""How ranks share the rows of windows in evaluation and generation: which rows are this rank's, and what they see.

Training distributes rows in the same way (``megarc/train/engine/row_sharing.py``). Here windows may have any length, so
a window is padded to a multiple of the number of ranks. The padding follows all other rows, and no row sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from megarc.attention import on_device
from megarc.interval import Intervals, Seen
from megarc.model import Transformer, loss_work_of
from megarc.parallel import Group, RankRows, all_reduce_sum
from megarc.row_shares import Numbers, Work, row_shares, work_of_rows
from megarc.window import WIDE, Narrowing


@dataclass(frozen=True)
class OwnRows:
    """This rank's rows of windows of ``rows`` rows.

    Attributes:
        numbers: [m] ascending; those from ``rows`` on fill up.
        seen: what they see, on the model's device.
        held: of each rank, how many of its rows do not fill up.
    """

    numbers: Numbers
    rows: int
    seen: RankRows
    held: list[int]

    @property
    def present(self) -> Numbers:
        """The numbers without those that fill up."""
        return self.numbers[self.numbers < self.rows]

    def of(self, values: npt.NDArray[np.integer]) -> Tensor:
        """``values`` [batch, rows] of own rows, [batch, m] int64 on the model's device; the last one again fills up."""
        own = values[:, np.minimum(self.numbers, self.rows - 1)].astype(np.int64)
        return torch.as_tensor(own).to(self.seen.begin.device)

    def positions(self, samples: int) -> Tensor:
        """The rows' own places in the window, [samples, m]."""
        return self.of(np.tile(np.arange(self.rows), (samples, 1)))


def own_rows(
    seen: Seen,
    rows: int,
    samples: int,
    group: Group,
    device: torch.device,
    *,
    narrowing: Narrowing = WIDE,
    loss: Numbers | None = None,
) -> OwnRows:
    """How the ranks of ``group`` share out ``samples`` windows of ``rows`` rows.

    Args:
        seen: in numpy.
        narrowing: how the model's attention sees less.
        loss: [rows], what else a row has to do, in (query, key) pairs; None: nothing.
    """
    padded = -(-rows // group.size) * group.size
    work: Work = np.zeros(padded)
    work[:rows] = work_of_rows(seen, rows, samples, narrowing, loss)
    shares = row_shares(work, group.size)
    numbers = shares[group.rank]
    places: Numbers = np.empty(padded, dtype=np.int64)
    places[np.concatenate(shares)] = np.arange(padded)
    intervals = on_device(_filled_up(seen, rows, padded, samples).map(lambda one: one[:, numbers]), device)
    at, whole = (torch.as_tensor(one).to(device) for one in (numbers, places))
    return OwnRows(
        numbers,
        rows,
        RankRows(intervals.begin, intervals.end, at, whole, group),
        [int((one < rows).sum()) for one in shares],
    )


def row_losses(
    model: Transformer,
    read: npt.NDArray[np.integer],
    rows: slice,
    seen: Seen,
    positions: npt.NDArray[np.integer] | None = None,
) -> Tensor:
    """Losses of the rows ``rows`` of windows ``read`` [batch, n + 1]: [batch, s] in nats, on every context rank.

    Args:
        seen: in numpy.
        positions: [batch, n], where each row stands; None: its number.
    """
    device, group = model.embedding.weight.device, model.tensor.context
    if group.size == 1:
        at = None if positions is None else torch.as_tensor(positions).to(device)
        tokens = torch.as_tensor(read).long().to(device)
        whole: Tensor = model(tokens, rows, on_device(seen, device), positions=at).nll
        return whole
    samples, n = len(read), read.shape[1] - 1
    bears: Numbers = np.zeros(n, dtype=np.int64)
    bears[rows] = 1
    loss = samples * loss_work_of(model.config) * bears
    own = own_rows(seen, n, samples, group, device, narrowing=model.config.narrowing, loss=loss)
    picked = np.flatnonzero(bears[own.present])
    flat = (np.arange(samples)[:, None] * len(own.numbers) + picked).ravel()
    inputs = own.of(read[:, :-1])
    tokens = torch.cat((inputs[:, :1], own.of(read[:, 1:])), 1)  # behind the first column each row's target
    at = own.positions(samples) if positions is None else own.of(positions)
    nll = model(tokens, torch.as_tensor(flat).to(device), own.seen, positions=at, inputs=inputs).nll
    found = nll.new_zeros(samples, int(bears.sum()))
    found[:, torch.as_tensor(own.numbers[picked] - rows.indices(n)[0]).to(device)] = nll.view(samples, -1)
    return all_reduce_sum(found, group)


def _filled_up(seen: Seen, rows: int, padded: int, samples: int) -> Intervals:
    """What rows see, [samples, padded] of int32; a row that fills up sees itself."""
    if not isinstance(seen, Intervals):
        seen = Intervals.of(rows, np.full(samples, seen, dtype=np.int32))
    more = np.tile(np.arange(rows, padded, dtype=np.int32), (samples, 1))
    return Intervals(np.hstack((seen.begin, more)), np.hstack((seen.end, more + 1)))
