"""The distribution of each row's state in the chain, under the window's mask."""

from __future__ import annotations

import torch
from torch import Tensor

from megarc.model.mixers.chain import messages
from megarc.model.mixers.directions import Documents


def marginals(
    potentials: Tensor,
    transition: Tensor,
    mixed: Tensor | None,
    where: int | Documents,
    before: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Of every row's state, [batch, heads, rows, states]; and the distribution behind the last row.

    Args:
        potentials: [batch, heads, rows, states].
        transition: [heads, matrices, states, states].
        mixed: the weight of each in the step to a row, [batch, heads, rows, matrices]; None: there is one matrix.
        where: as ``directions`` gives it.
        before: the distribution before the first row, where rows of C follow others.
    """
    back = transition.transpose(2, 3)
    if isinstance(where, Documents):
        after = messages(potentials, transition, mixed, where.first).after
        turned = _turned(potentials, mixed, potentials.shape[2], where.last)
        both = after * messages(turned[0], back, turned[1], where.last.flip(1)).before.flip(2)
    else:
        after = both = messages(
            potentials, transition, mixed, before=None if before is None else before[0]
        ).after
        if where:
            turned = _turned(potentials, mixed, where)
            behind = messages(turned[0], back, turned[1]).before.flip(2)
            both = torch.cat([after[:, :, :where] * behind, after[:, :, where:]], 2)
    return both / both.sum(-1, keepdim=True), after[:, :, -1]


def _turned(
    potentials: Tensor, mixed: Tensor | None, rows: int, last: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The first rows turned round: the step to a row is then the step from the row behind it, with that row's weights.

    To a row that nothing behind is read by (``last``), the step leads from a uniform distribution to the same,
    whatever the weights; they are the row's own, since rounding would tell it those of a row that it does not see.
    """
    if mixed is not None:
        behind = torch.cat([mixed[:, :, 1:rows], mixed[:, :, rows - 1 : rows]], 2)
        mixed = (behind if last is None else torch.where(last[:, None, :, None], mixed, behind)).flip(2)
    return potentials[:, :, :rows].flip(2), mixed
