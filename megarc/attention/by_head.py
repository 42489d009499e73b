"""Heads that see differently: some see R causally, the others both ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from megarc.interval import Seen, causally


@dataclass(frozen=True, slots=True)
class LayerHeads:
    """How a layer's heads attend, beyond what the window says.

    Attributes:
        engine: as in ``megarc.attention.attend``.
        sliding: a row sees no key that lies so many rows or more before it; None: any.
        causal: how many query heads of this rank, the first ones, see no key behind their row, in R too.
    """

    engine: str = "auto"
    sliding: int | None = None
    causal: int = 0


Attend = Callable[[Tensor, Tensor, Tensor, Seen], Tensor]


def attend_by_head(
    q: Tensor, k: Tensor, v: Tensor, seen: Seen, causal: int, attend: Attend, rows: Tensor | None = None
) -> Tensor:
    """Attention whose first ``causal`` query heads see no key behind their row, in R too.

    Args:
        q: ``[batch, heads, rows, head_dim]``, all rows of a window, or those that ``rows`` numbers.
        k: ``[batch, kv_heads, keys, head_dim]``, of all rows; query heads that share a key head see alike.
        v: as ``k``.
        seen: what the other heads see.
        attend: of some heads, as ``megarc.attention.attend``.
        rows: numbers of the queries' rows in the window, int32; None: 0, 1, ..

    Returns:
        ``[batch, heads, rows, head_dim]``.
    """
    if causal == 0 or seen == 0:
        return attend(q, k, v, seen)
    if rows is None:
        rows = torch.arange(q.shape[2], dtype=torch.int32, device=q.device)
    own = causally(seen, rows)
    if causal == q.shape[1]:
        return attend(q, k, v, own)
    groups = causal * k.shape[1] // q.shape[1]
    first = attend(q[:, :causal], k[:, :groups], v[:, :groups], own)
    return torch.cat((first, attend(q[:, causal:], k[:, groups:], v[:, groups:], seen)), dim=1)
