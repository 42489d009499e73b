"""Our own fused kernel: launches ``kernels.py`` on CUDA, or on the CPU through Triton's interpreter.

Takes every mask: ``recent`` at any row, one for each sample, documents. Grouped
heads read their keys where they lie. Any head_dim up to 128: one that is no
power of two works in a tile of the next. The gradients are deterministic.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from megarc.attention import cuda
from megarc.attention.mask import Mask, segment_ranges
from megarc.attention.operator import lse_dtype, operator
from megarc.errors import UserError

NAME = "triton"
LARGEST_HEAD_DIM = 128


@dataclass(frozen=True, slots=True)
class Tiles:
    """How one kernel is cut: rows and keys of a tile, warps of a program, stages of its pipeline."""

    rows: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The tiles of the three kernels."""

    forward: Tiles
    backward_rows: Tiles
    backward_keys: Tiles


def plan(head_dim: int) -> Plan:
    """The default tiles: the widest of those tried that hold every accumulator in sm_90's registers.

    None of them spills: benchmarks/results/attention_registers.json. (With head_dim 128,
    ``backward_keys`` of 64 rows x 128 keys spills 224 bytes a thread, of 64 x 64 with 4 warps 504.)
    Which plan is fastest awaits a GPU: benchmarks/gpu/attention.py --tiles times them all.
    """
    if head_dim <= 64:
        return Plan(Tiles(128, 128, 8, 3), Tiles(128, 128, 8, 3), Tiles(64, 128, 8, 3))
    return Plan(Tiles(128, 128, 8, 2), Tiles(128, 64, 8, 3), Tiles(32, 128, 8, 2))


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    if device.type == "cpu" and interpreted():
        return None if head_dim <= LARGEST_HEAD_DIM else f"it takes head_dim up to {LARGEST_HEAD_DIM}"
    return cuda.refuse(device, dtype, head_dim, capability=(8, 0), largest=LARGEST_HEAD_DIM)


def forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, tiles: Tiles | None = None
) -> tuple[Tensor, Tensor]:
    """Output as q and log-sum-exp ``[batch, heads, rows]``, in one launch."""
    from megarc.attention import kernels

    tiles = tiles or plan(q.shape[-1]).forward
    batch, heads, rows, _ = q.shape
    out, lse = torch.empty_like(q), q.new_empty((batch, heads, rows), dtype=lse_dtype(q))
    _launch(
        kernels.forward, (_ceil(rows, tiles.rows), batch * heads), tiles, mask, q, tiles.rows, tiles.keys,
        (q, k, v, out, lse), (q, k, v, out), (heads, heads // k.shape[1]), scale,
    )  # fmt: skip
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    mask: Mask,
    scale: float,
    tiles: Plan | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, in two launches."""
    from megarc.attention import kernels

    tiles = tiles or plan(q.shape[-1])
    batch, heads, rows, _ = q.shape
    kv_heads = k.shape[1]
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    delta = torch.empty_like(lse)
    cut = tiles.backward_rows
    _launch(
        kernels.backward_rows, (_ceil(rows, cut.rows), batch * heads), cut, mask, q, cut.rows, cut.keys,
        (grad, q, k, v, out, lse, delta, grad_q), (grad, q, k, v, out, grad_q), (heads, heads // kv_heads), scale,
    )  # fmt: skip
    cut = tiles.backward_keys
    _launch(
        kernels.backward_keys, (_ceil(rows, cut.keys), batch * kv_heads), cut, mask, q, cut.keys, cut.rows,
        (grad, q, k, v, lse, delta, grad_k, grad_v), (grad, q, k, v, grad_k, grad_v),
        (kv_heads, heads // kv_heads), scale,
    )  # fmt: skip
    return grad_q, grad_k, grad_v


attend = operator("fused", forward, backward)


def merge_(out: Tensor, lse: Tensor, other_out: Tensor, other_lse: Tensor) -> None:
    """``column.merge_`` in one launch: reads both outputs once, writes one."""
    from megarc.attention import kernels

    batch, heads, rows, head_dim = out.shape
    size = 64
    kernels.merge[(_ceil(rows, size), batch * heads)](
        out, lse, other_out, other_lse, *out.stride()[:3], *lse.stride(), *other_out.stride()[:3],
        *other_lse.stride(), heads, rows, ROWS=size, DIM=head_dim, WIDTH=width(head_dim), num_warps=4,
    )  # fmt: skip


# ---- launching


def _launch(
    kernel: Any,
    grid: tuple[int, int],
    tiles: Tiles,
    mask: Mask,
    q: Tensor,
    own: int,
    met: int,
    tensors: tuple[Tensor, ...],
    strided: tuple[Tensor, ...],
    counts: tuple[int, int],
    scale: float,
) -> None:
    """``own`` rows a program's tile has, ``met`` a tile that it walks over; the rest as the kernels order it."""
    if q.shape[-1] > LARGEST_HEAD_DIM:
        raise UserError(
            f"attention: masks that differ between samples take head_dim up to {LARGEST_HEAD_DIM} here, "
            f"not {q.shape[-1]}; use engine: flex"
        )
    if grid[1] > 65535:
        raise UserError(f"attention: {grid[1]} samples x heads are more than a launch takes (65535)")
    documents = None if mask.documents is None else mask.documents.to(torch.int32).contiguous()
    spans = None if documents is None else document_spans(documents, own, met)
    strides = [stride for tensor in strided for stride in tensor.stride()[:3]]
    head_dim = q.shape[-1]
    recents = mask.recents
    unused = tensors[0]  # a pointer that the kernel never follows
    kernel[grid](
        *tensors, *(unused if tensor is None else tensor for tensor in (recents, documents, spans)),
        *strides, *counts, q.shape[2], mask.recent, scale,
        ROWS=tiles.rows, KEYS=tiles.keys, DIM=head_dim, WIDTH=width(head_dim),
        VARIED=recents is not None, DOCUMENTS=documents is not None, WIDE=interpreted(),
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip


def width(head_dim: int) -> int:
    """The columns of a tile: a power of two, 16 at least."""
    return max(16, 1 << (head_dim - 1).bit_length())


def document_spans(documents: Tensor, own: int, met: int) -> Tensor:
    """Where the walk of each tile of ``own`` rows may start and must end, in whole tiles of ``met``.

    Tiles whose ranges of segment numbers do not overlap share no document. Segments
    numbered in order leave no tile in vain; in any order the walk is right, only longer.

    Returns:
        int32 ``[batch, tiles, 2]``.
    """
    rows = documents.shape[1]
    low, high = segment_ranges(documents, own)  # [batch, tiles]
    met_low, met_high = segment_ranges(documents, met)  # [batch, met tiles]
    shared = (low[:, :, None] <= met_high[:, None]) & (met_low[:, None] <= high[:, :, None])
    first = shared.int().argmax(dim=2)
    last = shared.shape[2] - shared.flip(2).int().argmax(dim=2)
    return torch.stack([first * met, (last * met).clamp(max=rows)], dim=2).to(torch.int32).contiguous()


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
