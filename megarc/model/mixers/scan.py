"""The gated linear recurrence, in chunks of rows: matrix products, and no loop over rows.

    S_i = exp(decay_i) S_{i-1} + k_i v_i^T        y_i = q_i S_i

is linear attention whose weights decay (Yang et al. 2023, 2312.06635; Dao and Gu 2024, 2405.21060, section 6):
y_i = sum over j <= i of exp(decay_{j+1} + .. + decay_i) (q_i k_j) v_j. Rows of a chunk read each other so, and the
state before the chunk by one more product. What chunks add to the state is carried on by the same scheme, in groups
of chunks. All exponents are 0 or less, so nothing overflows, whatever decays.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64
Scan = Callable[..., tuple[Tensor, Tensor]]
"""What ``scan`` is, or another that computes the same."""


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    first: Tensor | None = None,
    state: Tensor | None = None,
    *,
    strict: bool = False,
) -> tuple[Tensor, Tensor]:
    """What every row reads, [batch, heads, rows, v's width], and the state behind the last row.

    Args:
        q: [batch, heads, rows, d]; k alike; v [batch, heads, rows, e].
        decay: [batch, heads, rows], 0 or less.
        first: [batch, rows], rows where the state is empty; None: it goes on through all of them.
        state: before the first row, [batch, heads, d, e]; None: empty.
        strict: a row does not read itself: y_i = exp(decay_i) q_i S_{i-1}.
    """
    rows = q.shape[2]
    size = min(CHUNK, rows)
    q, k, v, decay = [_cut(x, size, 2) for x in (q, k, v, decay)]  # [batch, heads, chunks, size, ..]
    # Documents begun in the chunk, up to each row: rows with the same number are of one document.
    begun = None if first is None else _cut(first.long()[:, None], size, 2).cumsum(-1)
    between = _between(decay)
    near = _left(between, 0 if strict else 1, begun, begun)
    y = ((q @ k.transpose(-1, -2)) * near) @ v
    added = (k * _until_the_end(between, begun)[..., None]).transpose(-1, -2) @ v
    total, ended = decay.cumsum(-1), None if begun is None else begun[..., -1] > 0
    state = None if state is None else state.flatten(-2)
    before, after = _carried(added.flatten(-2), total[..., -1], ended, state)
    reads = _unless(begun, total).exp()
    y = y + (q * reads[..., None]) @ before.unflatten(-1, added.shape[-2:])
    return y.flatten(2, 3)[:, :, :rows], after.unflatten(-1, added.shape[-2:])


def _carried(
    added: Tensor, kept: Tensor, ended: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The state before each chunk, and behind the last.

    Args:
        added: [batch, heads, chunks, elements], what a chunk adds to the state.
        kept: [batch, heads, chunks], the log of what it leaves of the state before it.
        ended: [batch, 1, chunks], whether it leaves nothing.
    """
    count = added.shape[2]
    if count == 1:
        before = torch.zeros_like(added) if state is None else state[:, :, None]
        left = kept.exp() if ended is None else kept.exp().masked_fill(ended, 0.0)
        return before, (added + before * left[..., None])[:, :, 0]
    size = min(CHUNK, count)
    added, kept = _cut(added, size, 2), _cut(kept, size, 2)  # [batch, heads, groups, size, ..]
    begun = begun_before = None
    if ended is not None:
        ends = _cut(ended.long(), size, 2)
        begun = ends.cumsum(-1)
        begun_before = begun - ends
    between = _between(kept)
    # The state before chunk c has what chunk j < c added, less what the chunks between them take.
    ahead = F.pad(between, (0, 0, 1, -1))
    inside = _left(ahead, 0, begun_before, begun) @ added
    of_group = (_until_the_end(between, begun)[..., None, :] @ added)[..., 0, :]
    group_ended = None if begun is None else begun[..., -1] > 0
    total = kept.cumsum(-1)
    before, after = _carried(of_group, total[..., -1], group_ended, state)
    reads = _unless(begun_before, F.pad(total, (1, -1))).exp()
    inside = inside + reads[..., None] * before[..., None, :]
    return inside.flatten(2, 3)[:, :, :count], after


def _between(decay: Tensor) -> Tensor:
    """The sum of decay over the rows j + 1 .. i, [.., i, j], 0 above the diagonal.

    No difference of two sums: that would let rows of another document in, by rounding.
    """
    size = decay.shape[-1]
    below = torch.ones(size, size, dtype=torch.bool, device=decay.device).tril(-1)
    return torch.where(below, decay[..., :, None], 0.0).cumsum(-2)


def _left(between: Tensor, itself: int, of_reader: Tensor | None, of_read: Tensor | None) -> Tensor:
    """What is left of row j when row i reads it, [.., i, j]: 0 above the diagonal, and across documents."""
    size = between.shape[-1]
    allowed = torch.ones(size, size, dtype=torch.bool, device=between.device).tril(itself - 1)
    if of_reader is not None and of_read is not None:
        allowed = allowed & (of_reader[..., :, None] == of_read[..., None, :])
    return between.masked_fill(~allowed, float("-inf")).exp()


def _until_the_end(between: Tensor, begun: Tensor | None) -> Tensor:
    """What is left of each row behind the last one."""
    left = between[..., -1, :]
    return (left if begun is None else left.masked_fill(begun != begun[..., -1:], float("-inf"))).exp()


def _unless(begun: Tensor | None, total: Tensor) -> Tensor:
    """``total``, the log of what is left of the state before; nothing where a document has begun since."""
    return total if begun is None else total.masked_fill(begun > 0, float("-inf"))


def _cut(x: Tensor, size: int, dim: int) -> Tensor:
    """Dimension ``dim`` as [pieces, size], filled up with zeros: rows that add nothing and let nothing decay."""
    short = -x.shape[dim] % size
    if short:
        x = F.pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, short))
    return x.unflatten(dim, (-1, size))
