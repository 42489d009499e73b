"""The CPU's engine: torch's flash attention for CPU, in exact splits.

A small square is computed whole under its mask, since more calls would cost more than the pairs that they spare.
One plain window for the whole batch: the column split, its causal part in halves (``cpu_tiles.py``). Where rows have
intervals: the same for each document (``row_pieces.py``), and a mask of no more than a chunk
of rows where documents are short or their windows slide. No n x n tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from megarc.attention import cpu_tiles, cpu_whole
from megarc.attention.attention_call import Grads, Inputs, Outputs
from megarc.attention.autograd_operator import lse_dtype, operator, unit_stride
from megarc.attention.mask import Mask
from megarc.attention.row_pieces import Piece, pieces

NAME = "split_cpu"
FEWER_ROWS = True
CHUNK = 256  # rows; took the least CPU time of 64, 128, 256, 512 and 1024 at n = 1024 (docs/journal.md)
_KEPT = 128  # rows of a window whose mask by interval may be kept for the backward pass

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
    if mask.uniform:
        return cpu_tiles.forward(_CpuFlash(), call, mask.recent)
    cut = _cut(call, mask)
    if _is_all(cut, call):  # no copy
        return _piece_forward(call, mask, cut[0])
    out = torch.empty_like(call.q)
    lse = call.q.new_empty(call.q.shape[:3], dtype=lse_dtype(call.q))
    for piece in cut:
        found = _piece_forward(call.part(piece.rows, piece.keys, piece.sample), mask, piece)
        out[piece.sample, :, piece.rows], lse[piece.sample, :, piece.rows] = found
    return out, lse


def _backward(call: Inputs, mask: Mask, outputs: Outputs) -> Grads:
    if mask.uniform:
        return cpu_tiles.backward(_CpuFlash(), call, outputs, mask.recent)
    cut = _cut(call, mask)
    if _is_all(cut, call):
        return _piece_backward(call, mask, cut[0], outputs)
    # Where these rows are some of a window's, they leave keys unseen, whose gradients are 0.
    made = torch.empty_like if call.rows == call.k.shape[2] else torch.zeros_like
    grad_q, grad_k, grad_v = torch.empty_like(call.q), made(call.k), made(call.v)
    sample, done = 0, 0  # keys of these samples before ``done`` have a gradient: pieces come in such an order
    for piece in cut:
        part = call.part(piece.rows, piece.keys, piece.sample)
        found = _piece_backward(part, mask, piece, outputs.part(piece.rows, piece.sample))
        grad_q[piece.sample, :, piece.rows] = found[0]
        if piece.sample.start != sample:
            done = 0
        for whole, share in zip((grad_k, grad_v), found[1:], strict=True):
            _add_up(whole[piece.sample], share, piece.keys, done)
        sample, done = piece.sample.start, max(done, piece.keys.stop)
    return grad_q, grad_k, grad_v


def _is_all(cut: list[Piece], call: Inputs) -> bool:
    """Whether one piece is all rows and all keys of all samples."""
    return len(cut) == 1 and cut[0].keys == slice(0, call.k.shape[2])


def _piece_forward(part: Inputs, mask: Mask, piece: Piece) -> tuple[Tensor, Tensor]:
    if piece.recent is None:
        return _CpuFlash(_bias(mask, piece, part.q.dtype)).forward(part, False)
    return cpu_tiles.forward(_CpuFlash(), part, piece.recent)


def _piece_backward(part: Inputs, mask: Mask, piece: Piece, given: Outputs) -> Grads:
    if piece.recent is None:
        return _CpuFlash(_bias(mask, piece, part.q.dtype)).backward(part, given, False)
    return cpu_tiles.backward(_CpuFlash(), part, given, piece.recent)


def _add_up(whole: Tensor, share: Tensor, keys: slice, done: int) -> None:
    """Puts the gradients of some keys into ``whole``, where those before ``done`` have shares already."""
    more = max(0, min(done, keys.stop) - keys.start)
    if more:
        whole[:, :, keys.start : keys.start + more] += share[:, :, :more]
    whole[:, :, keys.start + more : keys.stop] = share[:, :, more:]


_in_pieces = operator("split_cpu", _forward, _backward)


def _cut(call: Inputs, mask: Mask) -> list[Piece]:
    """The pieces of rows with intervals; one of all rows, where several would not pay."""
    assert mask.begin is not None and mask.end is not None
    if cpu_whole.pieces_may_pay(call, mask.begin, mask.end):
        cut = list(pieces(mask.begin, mask.end, call.k.shape[2], CHUNK))
        if cpu_whole.pieces_pay(call, cut):
            return cut
    return [Piece.whole(len(call.q), call.rows)]


def _bias(mask: Mask, piece: Piece, dtype: torch.dtype) -> Tensor:
    """What is added to a piece's scores: ``[1, 1, rows, keys]``, or ``[batch, ...]`` if its samples differ."""
    assert mask.begin is not None and mask.end is not None
    samples = slice(piece.sample.start, piece.sample.start + 1) if piece.alike else piece.sample
    begin, end = mask.begin[samples, piece.rows], mask.end[samples, piece.rows]
    return cpu_whole.interval_bias(begin, end, piece.keys, dtype)


# ---- whole


def attend(call: Inputs, mask: Mask) -> Tensor:
    """``[B, H, m, d]``, differentiable."""
    # A graph of the compiler's has the operator, whatever the sizes.
    if torch.compiler.is_compiling() or not _is_small(call, mask):
        return _in_pieces(call, mask)
    q, k, v = (unit_stride(one) for one in (call.q, call.k, call.v))
    causal = mask.uniform and mask.recent <= 1
    bias = None if causal else cpu_whole.bias(mask, q)
    out: Tensor = _flash(q, k, v, 0.0, causal, attn_mask=bias, scale=call.scale)[0]
    return out


def _is_small(call: Inputs, mask: Mask) -> bool:
    """Whether one call will do: torch differentiates it by itself, and our operator would cost as much again."""
    if mask.uniform:
        return not cpu_whole.tiles_pay(call, mask.recent)
    begin = mask.begin
    if begin is None or type(begin) is not Tensor or begin.device.type != "cpu":  # shapes alone
        return False
    if call.rows != call.k.shape[2] or call.rows > _KEPT:
        return False
    first = _cut(call, mask)[0]
    return first.recent is None and first.rows == slice(0, call.rows)
