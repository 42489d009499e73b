"""The reference: a dense mask, written to be believed. Every other engine is tested against it.

The only engine that makes tensors of n x n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from megarc.attention.attention_call import Inputs
from megarc.attention.mask import Mask

NAME = "reference"
FEWER_ROWS = True


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None: it always can."""
    return None


def attend(call: Inputs, mask: Mask) -> Tensor:
    """Attention of ``q [B, H, m, d]`` over ``k``, ``v`` ``[B, Hkv, n, d]``, in float32 at least."""
    q, k, v = call.q, call.k, call.v
    batch, heads, rows, head_dim = q.shape
    kv_heads = k.shape[1]
    work = torch.promote_types(q.dtype, torch.float32)
    # Query head h reads key head h // (H / Hkv): [batch, kv_heads, group, rows, head_dim].
    grouped = q.to(work).reshape(batch, kv_heads, heads // kv_heads, rows, head_dim)
    scores = grouped @ k.to(work).unsqueeze(2).mT * call.scale  # [batch, kv_heads, group, rows, keys]
    allowed = mask.dense(k.shape[2], device=q.device)[:, None, None]  # [batch or 1, 1, 1, rows, keys]
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
    out = weights @ v.to(work).unsqueeze(2)
    return out.reshape(batch, heads, rows, head_dim).to(q.dtype)
