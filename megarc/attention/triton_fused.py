"""Our own fused kernel: launches ``triton_kernels.py`` on CUDA, or on the CPU through Triton's interpreter.

Takes every mask: ``recent`` at any row, or an interval of keys for each row. Grouped
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

from megarc.attention import cuda_requirements
from megarc.attention.attention_call import Grads, Inputs, Outputs
from megarc.attention.autograd_operator import lse_dtype, operator
from megarc.attention.mask import Mask, Reach, keys_of_rows, rows_of_keys
from megarc.errors import UserError

NAME = "triton"
FEWER_ROWS = True
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


def plan(head_dim: int, intervals: bool = False) -> Plan:
    """The default tiles: the widest of those tried that hold every accumulator in sm_90's registers.

    None of them spills: benchmarks/results/attention_registers.json. (With head_dim 128,
    ``backward_keys`` of 64 rows x 128 keys spills 224 bytes a thread, of 64 x 64 with 4 warps 504; with
    head_dim 64 and an interval for each row it spills 48.)
    Which plan is fastest awaits a GPU: benchmarks/gpu/attention.py --tiles times them all.
    """
    if head_dim <= 64:
        keys = Tiles(32 if intervals else 64, 128, 8, 3)
        return Plan(Tiles(128, 128, 8, 3), Tiles(128, 128, 8, 3), keys)
    return Plan(Tiles(128, 128, 8, 2), Tiles(128, 64, 8, 3), Tiles(32, 128, 8, 2))


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    if device.type == "cpu" and interpreted():
        return None if head_dim <= LARGEST_HEAD_DIM else f"it takes head_dim up to {LARGEST_HEAD_DIM}"
    return cuda_requirements.refuse(device, dtype, head_dim, capability=(8, 0), largest=LARGEST_HEAD_DIM)


def forward(call: Inputs, mask: Mask, tiles: Tiles | None = None) -> tuple[Tensor, Tensor]:
    """Output as q and log-sum-exp ``[batch, heads, rows]``, in one launch."""
    from megarc.attention import triton_kernels

    q, k, v = call.q, call.k, call.v
    tiles = tiles or plan(q.shape[-1], not mask.uniform).forward
    batch, heads, rows, _ = q.shape
    out, lse = torch.empty_like(q), q.new_empty((batch, heads, rows), dtype=lse_dtype(q))
    spans = None if mask.begin is None else key_spans(mask, tiles.rows, tiles.keys)
    _launch(
        triton_kernels.forward, (_ceil(rows, tiles.rows), batch * heads), tiles, call, mask, spans,
        (q, k, v, out, lse), (q, k, v, out), (heads, heads // k.shape[1]),
    )  # fmt: skip
    return out, lse


def backward(call: Inputs, mask: Mask, outputs: Outputs, tiles: Plan | None = None) -> Grads:
    """Gradients of q, k and v, in two launches."""
    from megarc.attention import triton_kernels

    q, k, v = call.q, call.k, call.v
    tiles = tiles or plan(q.shape[-1], not mask.uniform)
    batch, heads, rows, _ = q.shape
    kv_heads = k.shape[1]
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    grad, out, lse = outputs.grad, outputs.out, outputs.lse
    delta = torch.empty_like(lse)
    cut = tiles.backward_rows
    spans = None if mask.begin is None else key_spans(mask, cut.rows, cut.keys)
    _launch(
        triton_kernels.backward_rows, (_ceil(rows, cut.rows), batch * heads), cut, call, mask, spans,
        (grad, q, k, v, out, lse, delta, grad_q), (grad, q, k, v, out, grad_q), (heads, heads // kv_heads),
    )  # fmt: skip
    cut = tiles.backward_keys
    spans = None if mask.begin is None else row_spans(mask, k.shape[2], cut.keys, cut.rows)
    _launch(
        triton_kernels.backward_keys, (_ceil(k.shape[2], cut.keys), batch * kv_heads), cut, call, mask, spans,
        (grad, q, k, v, lse, delta, grad_k, grad_v), (grad, q, k, v, grad_k, grad_v),
        (kv_heads, heads // kv_heads),
    )  # fmt: skip
    return grad_q, grad_k, grad_v


attend = operator("fused", forward, backward)


def merge_(out: Tensor, lse: Tensor, other_out: Tensor, other_lse: Tensor) -> None:
    """``column.merge_`` in one launch: reads both outputs once, writes one."""
    from megarc.attention import triton_kernels

    batch, heads, rows, head_dim = out.shape
    size = 64
    triton_kernels.merge[(_ceil(rows, size), batch * heads)](
        out, lse, other_out, other_lse, *out.stride()[:3], *lse.stride(), *other_out.stride()[:3],
        *other_lse.stride(), heads, rows, ROWS=size, DIM=head_dim, WIDTH=width(head_dim), num_warps=4,
    )  # fmt: skip


# ---- launching


def _launch(
    kernel: Any,
    grid: tuple[int, int],
    tiles: Tiles,
    call: Inputs,
    mask: Mask,
    spans: Tensor | None,
    tensors: tuple[Tensor, ...],
    strided: tuple[Tensor, ...],
    counts: tuple[int, int],
) -> None:
    """``spans`` are those of each program's tile, where rows have intervals; the rest as the kernels order it."""
    head_dim = call.q.shape[-1]
    if head_dim > LARGEST_HEAD_DIM:
        raise UserError(
            f"attention: intervals of keys take head_dim up to {LARGEST_HEAD_DIM} here, "
            f"not {head_dim}; use engine: flex"
        )
    if grid[1] > 65535:
        raise UserError(f"attention: {grid[1]} samples x heads are more than a launch takes (65535)")
    strides = [stride for tensor in strided for stride in tensor.stride()[:3]]
    unused = tensors[0]  # a pointer that the kernel never follows
    intervals = () if mask.begin is None or mask.end is None else (mask.begin, mask.end)
    begin, end = (tensor.contiguous() for tensor in intervals or (unused, unused))
    kernel[grid](
        *tensors, begin, end, unused if spans is None else spans,
        *strides, *counts, call.rows, call.k.shape[2], mask.recent, call.scale,
        ROWS=tiles.rows, KEYS=tiles.keys, DIM=head_dim, WIDTH=width(head_dim),
        INTERVALS=spans is not None, WIDE=interpreted(), num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip


def width(head_dim: int) -> int:
    """The columns of a tile: a power of two, 16 at least."""
    return max(16, 1 << (head_dim - 1).bit_length())


def key_spans(mask: Mask, rows: int, keys: int) -> Tensor:
    """The walk of each tile of ``rows`` rows over tiles of ``keys`` keys: int32 ``[batch, tiles, 4]``."""
    assert mask.begin is not None and mask.end is not None
    return _spans(keys_of_rows(mask.begin, mask.end, rows), keys)


def row_spans(mask: Mask, count: int, keys: int, rows: int) -> Tensor:
    """The walk of each tile of ``keys`` of ``count`` keys over tiles of ``rows`` rows: int32 ``[batch, tiles, 4]``."""
    assert mask.begin is not None and mask.end is not None
    return _spans(rows_of_keys(mask.begin, mask.end, count, keys), rows)


def _spans(reach: Reach, size: int) -> Tensor:
    """Where a walk starts, where it needs no mask (from, to), and where it ends.

    All but the end are whole tiles of ``size``. Only a tile that is met whole needs no mask.
    """
    low = reach.low // size * size
    full_low = (reach.full_low + size - 1) // size * size
    full_high = torch.maximum(reach.full_high // size * size, full_low)
    # where nothing is met whole, one masked walk goes from low to the end
    nothing = full_high <= full_low
    full_low, full_high = (torch.where(nothing, low, edge) for edge in (full_low, full_high))
    return torch.stack([low, full_low, full_high, reach.high], dim=2).to(torch.int32).contiguous()


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
