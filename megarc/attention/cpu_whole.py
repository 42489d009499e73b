"""Decides when a small batch is computed whole on a CPU: in one call under a mask.

Several calls compute fewer pairs, but each call has a cost of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from megarc.attention import cpu_tiles
from megarc.attention.attention_call import Inputs
from megarc.attention.mask import Mask
from megarc.attention.row_pieces import Piece

MOST_ROWS = 256  # of a window that is ever taken whole: an n x n mask stays small
_HIDDEN = -1e30  # added to a score; -inf would make 0 * -inf
_CALL = 1 << 21  # pairs x width that take as long as a call costs beside its pairs (docs/journal.md)


def pieces_may_pay(call: Inputs, begin: Tensor, end: Tensor) -> bool:
    """Whether pieces may spare more than their calls cost; asked before they are made.

    They compute the allowed pairs at least, in a call for each sample that differs from the one before it.
    """
    if not _may_be_whole(call):
        return True
    both = torch.stack((begin, end), 1)
    differ = (both[1:] != both[:-1]).flatten(1).any(1).sum()
    pairs = (end - begin).sum()
    return _pay(call, int(differ) + 1, int(pairs))


def pieces_pay(call: Inputs, pieces: Sequence[Piece]) -> bool:
    """Whether ``pieces`` of ``call`` spare more than their calls cost; if not, all of it should be one call."""
    if not _may_be_whole(call):
        return True
    calls = pairs = 0
    for piece in pieces:
        count, computed = 1, (piece.rows.stop - piece.rows.start) * (piece.keys.stop - piece.keys.start)
        if piece.recent is not None:
            count, computed = cpu_tiles.cost(call.part(piece.rows, piece.keys, piece.sample), piece.recent)
        calls, pairs = calls + count, pairs + computed * (piece.sample.stop - piece.sample.start)
    return _pay(call, calls, pairs)


def tiles_pay(call: Inputs, recent: int) -> bool:
    """Whether the tiles of a plain window spare more than their calls cost."""
    if not _may_be_whole(call):
        return True
    calls, pairs = cpu_tiles.cost(call, recent)
    return _pay(call, calls, pairs * len(call.q))


def bias(mask: Mask, like: Tensor) -> Tensor | None:
    """What is added to scores: 0 where a row sees a key, and elsewhere what leaves no probability.

    Returns:
        ``[batch or 1, 1, rows, rows]`` of like's type; None where every row sees every key.
    """
    rows = like.shape[2]
    if mask.begin is not None and mask.end is not None:
        return interval_bias(mask.begin, mask.end, slice(0, rows), like.dtype)
    if mask.recent == rows:
        return None
    # Three operations: on so few numbers each costs as much as thousands of them.
    made = like.new_full((1, 1, rows, rows), -torch.inf).triu_(1)
    made[..., : mask.recent] = 0
    return made


def interval_bias(begin: Tensor, end: Tensor, keys: slice, dtype: torch.dtype) -> Tensor:
    """As ``bias``, for some keys, and for rows that see those from ``begin`` to before ``end`` ``[batch, rows]``.

    Comparisons and a choice by their result take four times as long on a CPU.
    """
    key = torch.arange(keys.start, keys.stop, dtype=torch.float32)
    beyond = torch.maximum(begin[..., None] - key, key + 1 - end[..., None])  # how far; 0 and less: seen
    return beyond.clamp_(min=0).mul_(_HIDDEN).to(dtype)[:, None]


def _may_be_whole(call: Inputs) -> bool:
    return call.rows == call.k.shape[2] <= MOST_ROWS


def _pay(call: Inputs, calls: int, pairs: int) -> bool:
    batch, heads, rows, width = call.q.shape
    spared = (batch * rows * call.k.shape[2] - pairs) * heads * width
    return spared > (calls + 1) * _CALL
