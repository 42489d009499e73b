"""The CPU's engine: torch's flash attention for CPU, in two exact splits.

One ``recent`` for the whole batch: the column split (``column.py``). Where
``recent`` or documents differ between samples: rows in chunks, each against the
range of keys that it may see, under a mask of that size. No n x n tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from megarc.attention import column
from megarc.attention.mask import Mask
from megarc.attention.operator import operator

NAME = "split_cpu"
CHUNK = 256  # rows; took the least CPU time of 64, 128, 256, 512 and 1024 at n = 1024 (docs/journal.md)

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    if device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {device}"
    return None


# ---- torch's flash attention for CPU: any head_dim, grouped heads without copies


class _CpuFlash:
    def forward(self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
        out, lse = _flash(q, k, v, 0.0, causal, scale=scale)
        return out, lse

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        grad_q, grad_k, grad_v = _flash_backward(grad, q, k, v, out, lse, 0.0, causal, scale=scale)
        return grad_q, grad_k, grad_v


# ---- rows in chunks, under a mask


def _chunks_forward(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float) -> tuple[Tensor, Tensor]:
    outs, lses = [], []
    for rows, keys, bias in _chunks(q, mask):
        out, lse = _flash(
            q[:, :, rows], k[:, :, keys], v[:, :, keys], 0.0, False, attn_mask=bias, scale=scale
        )
        outs.append(out)
        lses.append(lse)
    return torch.cat(outs, dim=2), torch.cat(lses, dim=2)


def _chunks_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, mask: Mask, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    grad_qs, grad_k, grad_v = [], torch.zeros_like(k), torch.zeros_like(v)
    for rows, keys, bias in _chunks(q, mask):
        part_q, part_k, part_v = _flash_backward(
            grad[:, :, rows], q[:, :, rows], k[:, :, keys], v[:, :, keys], out[:, :, rows], lse[:, :, rows],
            0.0, False, attn_mask=bias, scale=scale,
        )  # fmt: skip
        grad_qs.append(part_q)
        grad_k[:, :, keys] += part_k
        grad_v[:, :, keys] += part_v
    return torch.cat(grad_qs, dim=2), grad_k, grad_v


def _chunks(q: Tensor, mask: Mask) -> Iterator[tuple[slice, slice, Tensor]]:
    """``(rows, keys, bias [batch, 1, rows, keys])``: ``keys`` spans all that any of the rows sees."""
    total = q.shape[2]
    for first in range(0, total, CHUNK):
        rows = slice(first, min(first + CHUNK, total))
        allowed = mask.dense(total, rows.start, rows.stop, device=q.device)
        seen = allowed.any(dim=1).any(dim=0).nonzero()
        keys = slice(int(seen[0]), int(seen[-1]) + 1)
        bias = torch.zeros(allowed[:, :, keys].shape, dtype=q.dtype)
        yield rows, keys, bias.masked_fill_(~allowed[:, :, keys], -torch.inf)[:, None]


# ---- the operator


def _forward(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float) -> tuple[Tensor, Tensor]:
    mask = _simplest(mask)
    if mask.uniform:
        return column.forward(_CpuFlash(), q, k, v, mask.recent, scale)
    return _chunks_forward(q, k, v, mask, scale)


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, mask: Mask, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    mask = _simplest(mask)
    if mask.uniform:
        return column.backward(_CpuFlash(), grad, q, k, v, out, lse, mask.recent, scale)
    return _chunks_backward(grad, q, k, v, out, lse, mask, scale)


attend = operator("split_cpu", _forward, _backward)


def _simplest(mask: Mask) -> Mask:
    """The same mask without ``recents`` where all samples agree."""
    if mask.recents is None:
        return mask
    low, high = (int(end) for end in mask.recents.aminmax())
    return Mask(low, None, mask.documents) if low == high else mask
