"""torch's FlexAttention with the prefix mask, compiled: a peer to measure against, and a fallback on CUDA.

On the CPU torch gives it a forward pass only.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from megarc.attention.mask import Mask, segment_ranges
from megarc.window import allow

NAME = "flex"
BLOCK = 128


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    if dtype == torch.float64:
        return "it takes no float64"
    if device.type == "cuda" and not torch.cuda.is_available():
        return "no CUDA device is here"
    if device.type not in ("cpu", "cuda"):
        return f"it runs on CUDA and the CPU, the tensors are on {device}"
    if device.type == "cuda" and (head_dim < 16 or head_dim & (head_dim - 1)):
        return f"it takes a head_dim that is a power of two from 16 on, not {head_dim}"
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float) -> Tensor:
    """Attention of ``q [B, H, n, d]`` over ``k``, ``v`` ``[B, Hkv, n, d]``."""
    grouped = q.shape[1] != k.shape[1]
    blocks = block_mask(mask, q.shape[0], q.shape[2], q.device)
    out: Tensor = _compiled()(q, k, v, block_mask=blocks, scale=scale, enable_gqa=grouped)
    return out


def block_mask(mask: Mask, batch: int, rows: int, device: torch.device) -> BlockMask:
    """The blocks to visit, from the mask's definition at their corners: no tensor of rows x rows."""
    documents = mask.documents
    recents = mask.recents
    if recents is None:  # a tensor all the same: another recent then needs no other kernel
        recents = torch.full((batch,), mask.recent, device=device)

    def window(sample: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen: Tensor = allow(query, key, recents[sample])
        return seen

    def window_and_documents(sample: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert documents is not None
        return window(sample, head, query, key) & (documents[sample, query] == documents[sample, key])

    recent = (recents[:1] if mask.uniform else recents)[:, None, None]
    first = torch.arange(0, rows, BLOCK, device=device)
    last = (first + BLOCK - 1).clamp(max=rows - 1)
    # [batch or 1, blocks of queries, blocks of keys]
    some = allow(last[:, None], first, recent)
    full = allow(first[:, None], last, recent) & (first + BLOCK <= rows) & (first[:, None] + BLOCK <= rows)
    if documents is not None:
        low, high = segment_ranges(documents, BLOCK)
        some = some & (low[:, :, None] <= high[:, None]) & (low[:, None] <= high[:, :, None])
        full = full & (low[:, :, None] == high[:, None]) & (low[:, None] == high[:, :, None])
    modifier = window if documents is None else window_and_documents
    return BlockMask.from_kv_blocks(
        *_listed(some & ~full), *_listed(full), BLOCK_SIZE=BLOCK, mask_mod=modifier, seq_lengths=(rows, rows)
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks each row of blocks visits, and which: ``[batch, 1, blocks(, blocks)]``."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32)[:, None], order.to(torch.int32)[:, None]


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)
