"""References of the mixers, row by row, and what rows see as tensors."""

import numpy as np
import torch

from megarc.interval import Intervals


def row_by_row(q, k, v, decay, first=None, state=None, *, strict=False):
    """The recurrence of ``megarc.model.mixers.scan``, one row after the other."""
    batch, heads, rows, width = q.shape
    if state is None:
        state = q.new_zeros(batch, heads, width, v.shape[-1])
    read = []
    for row in range(rows):
        if first is not None:
            state = torch.where(first[:, row, None, None, None], 0.0, state)
        kept = state * decay[:, :, row, None, None].exp()
        if first is not None and strict:
            kept = torch.where(first[:, row, None, None, None], 0.0, kept)
        state = kept + k[:, :, row, :, None] * v[:, :, row, None, :]
        read.append((q[:, :, row, None, :] @ (kept if strict else state))[:, :, 0])
    return torch.stack(read, 2), state


def intervals_of(samples):
    """Of samples, each a list of documents (rows, rows of R)."""
    begins, ends = [], []
    for documents in samples:
        begin, end, place = [], [], 0
        for rows, recent in documents:
            for row in range(place, place + rows):
                begin.append(place)
                end.append(max(place + recent, row + 1))
            place += rows
        begins.append(begin)
        ends.append(end)
    return Intervals(*(torch.from_numpy(np.array(x, np.int32)) for x in (begins, ends)))
