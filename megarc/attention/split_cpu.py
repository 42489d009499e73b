"""The CPU's engine: torch's flash attention for CPU, in exact splits.

One plain window for the whole batch: the column split, its causal part in halves (``cpu_tiles.py``). Where rows have
intervals: the same for each document (``row_pieces.py``), and a mask of no more than a chunk
of rows where documents are short or their windows slide. No n x n tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from megarc.attention import cpu_tiles
from megarc.attention.attention_call import Grads, Inputs, Outputs
from megarc.attention.autograd_operator import lse_dtype, operator
from megarc.attention.mask import Mask
from megarc.attention.row_pieces import Piece, pieces

NAME = "split_cpu"
FEWER_ROWS = True
CHUNK = 256  # rows; took the least CPU time of 64, 128, 256, 512 and 1024 at n = 1024 (docs/journal.md)

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    if device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {device}"
    return None


class _CpuFlash:
    """torch's flash attention for CPU: any head_dim, grouped heads without copies."""

    def __init__(self, bias: Tensor | None = None) -> None:
        self.bias = bias  # [1, 1, rows, keys], added to the scores

    def forward(self, call: Inputs, causal: bool) -> tuple[Tensor, Tensor]:
        out, lse = _flash(call.q, call.k, call.v, 0.0, causal, attn_mask=self.bias, scale=call.scale)
        return out, lse

    def backward(self, call: Inputs, outputs: Outputs, causal: bool) -> Grads:
        grads: Grads = _flash_backward(
            outputs.grad, call.q, call.k, call.v, outputs.out, outputs.lse, 0.0, causal,
            attn_mask=self.bias, scale=call.scale,
        )  # fmt: skip
        return grads


# ---- piece by piece


def _forward(call: Inputs, mask: Mask) -> tuple[Tensor, Tensor]:
    if mask.begin is None or mask.end is None:
        return cpu_tiles.forward(_CpuFlash(), call, mask.recent)
    out = torch.empty_like(call.q)
    lse = call.q.new_empty(call.q.shape[:3], dtype=lse_dtype(call.q))
    for piece in pieces(mask.begin, mask.end, call.k.shape[2], CHUNK):
        part = call.part(piece.rows, piece.keys, piece.sample)
        if piece.recent is None:
            found = _CpuFlash(_bias(mask, piece, call.q.dtype)).forward(part, False)
        else:
            found = cpu_tiles.forward(_CpuFlash(), part, piece.recent)
        out[piece.sample, :, piece.rows], lse[piece.sample, :, piece.rows] = found
    return out, lse


def _backward(call: Inputs, mask: Mask, outputs: Outputs) -> Grads:
    if mask.begin is None or mask.end is None:
        return cpu_tiles.backward(_CpuFlash(), call, outputs, mask.recent)
    made = (
        torch.empty_like if mask.begin.shape[1] == call.k.shape[2] else torch.zeros_like
    )  # a key may be unseen
    grad_q, grad_k, grad_v = torch.empty_like(call.q), made(call.k), made(call.v)
    sample, done = 0, 0  # keys of these samples before ``done`` have a gradient: pieces come in such an order
    for piece in pieces(mask.begin, mask.end, call.k.shape[2], CHUNK):
        part = call.part(piece.rows, piece.keys, piece.sample)
        given = outputs.part(piece.rows, piece.sample)
        if piece.recent is None:
            found = _CpuFlash(_bias(mask, piece, call.q.dtype)).backward(part, given, False)
        else:
            found = cpu_tiles.backward(_CpuFlash(), part, given, piece.recent)
        grad_q[piece.sample, :, piece.rows] = found[0]
        done = done if piece.sample.start == sample else 0
        for whole, share in zip((grad_k, grad_v), found[1:], strict=True):
            _add_up(whole[piece.sample], share, piece.keys, done)
        sample, done = piece.sample.start, piece.keys.stop
    return grad_q, grad_k, grad_v


def _add_up(whole: Tensor, share: Tensor, keys: slice, done: int) -> None:
    """Puts the gradients of some keys into ``whole``, where those before ``done`` have shares already."""
    more = max(0, done - keys.start)
    if more:
        whole[:, :, keys.start : done] += share[:, :, :more]
    whole[:, :, keys.start + more : keys.stop] = share[:, :, more:]


attend = operator("split_cpu", _forward, _backward)


def _bias(mask: Mask, piece: Piece, dtype: torch.dtype) -> Tensor:
    """0 where a row sees a key and -inf elsewhere: ``[1, 1, rows, keys]``; one sample speaks for all."""
    assert mask.intervals is not None
    one = mask.intervals.map(lambda array: array[piece.sample.start : piece.sample.start + 1])
    allowed = one.allow(torch.arange(piece.keys.start, piece.keys.stop, dtype=torch.int32), piece.rows)
    return torch.where(allowed, 0.0, -torch.inf).to(dtype)[:, None]
