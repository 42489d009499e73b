"""torch's FlexAttention with the prefix mask, compiled: a peer to measure against, and a fallback on CUDA.

On the CPU torch gives it a forward pass only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from megarc.attention.attention_call import Inputs
from megarc.attention.mask import Mask, keys_of_rows
from megarc.window import allow

NAME = "flex"
BLOCK = 128

Modifier = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(sample, head, query, key)`` -> whether the pair is allowed."""


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    if dtype == torch.float64:
        return "it does not support float64"
    if device.type == "cuda" and not torch.cuda.is_available():
        return "no CUDA device is here"
    if device.type not in ("cpu", "cuda"):
        return f"it runs on CUDA and the CPU, the tensors are on {device}"
    if device.type == "cuda" and (head_dim < 16 or head_dim & (head_dim - 1)):
        return f"it takes a head_dim that is a power of two from 16 on, not {head_dim}"
    return None


def attend(call: Inputs, mask: Mask) -> Tensor:
    """Attention of ``q [B, H, n, d]`` over ``k``, ``v`` ``[B, Hkv, n, d]``."""
    q, k, v = call.q, call.k, call.v
    blocks = block_mask(mask, q.shape[0], call.rows, q.device)
    grouped = q.shape[1] != k.shape[1]
    out: Tensor = _compiled()(q, k, v, block_mask=blocks, scale=call.scale, enable_gqa=grouped)
    return out


def block_mask(mask: Mask, batch: int, rows: int, device: torch.device) -> BlockMask:
    """The blocks to visit, from the mask's definition at their corners: no tensor of rows x rows."""
    some, full = _plain_blocks(mask, rows, device) if mask.begin is None else _interval_blocks(mask, rows)
    return BlockMask.from_kv_blocks(
        *_listed(some & ~full),
        *_listed(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=_modifier(mask, batch, device),
        seq_lengths=(rows, rows),
    )


def _modifier(mask: Mask, batch: int, device: torch.device) -> Modifier:
    """Whether a sample's row sees a key."""
    begin, end = mask.begin, mask.end
    if begin is None or end is None:
        # a tensor all the same: another recent then needs no other kernel
        recents = torch.full((batch,), mask.recent, device=device)
        return lambda sample, head, query, key: allow(query, key, recents[sample])
    return lambda sample, head, query, key: (begin[sample, query] <= key) & (key < end[sample, query])


def _plain_blocks(mask: Mask, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Blocks [1, blocks of queries, blocks of keys] of which something, and everything, is allowed."""
    first, last, whole = _corners(rows, device)
    some = allow(last[:, None], first, mask.recent)
    full = allow(first[:, None], last, mask.recent) & whole & whole[:, None]
    return some[None], full[None]


def _interval_blocks(mask: Mask, rows: int) -> tuple[Tensor, Tensor]:
    """The same for each sample: [batch, blocks of queries, blocks of keys]."""
    assert mask.begin is not None and mask.end is not None
    reach = keys_of_rows(mask.begin, mask.end, BLOCK)
    first, last, whole = _corners(rows, mask.begin.device)
    some = (reach.low[:, :, None] <= last) & (first < reach.high[:, :, None])
    full = (reach.full_low[:, :, None] <= first) & (last < reach.full_high[:, :, None])
    return some, full & whole & whole[:, None]


def _corners(rows: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """First and last row of each block, and whether it has all its rows."""
    first = torch.arange(0, rows, BLOCK, device=device)
    return first, (first + BLOCK - 1).clamp(max=rows - 1), first + BLOCK <= rows


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks each row of blocks visits, and which: ``[batch, 1, blocks(, blocks)]``."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32)[:, None], order.to(torch.int32)[:, None]


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)
