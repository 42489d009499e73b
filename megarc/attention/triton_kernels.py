"""The fused kernels, in Triton: one launch forward, two backward. Launched by ``triton_fused.py``.

A program owns a tile of rows (or of keys) and walks over the keys (or rows) that
the window lets it meet. Of the tiles on its way, those that the mask empties are
never visited, those that it fills are taken without a mask, and only those that
straddle its edge pay for one:

    keys:  0 .... full_high | full_high ... stop
           no mask          | masked                full_high = max(recent, first row + 1), in whole tiles
                                                    stop      = max(recent, last row + 1)

Where each row has an interval of keys (``INTERVALS``), a masked walk goes before, from
``low`` to ``full_low``; neither end of the intervals falls from row to row, so that a tile's
first and last rows say where its walks begin and end.

Scores are kept in units of log2, so that ``exp2`` needs no multiplication.
Every sum is made by one program in a fixed order: the kernels are deterministic.

Pointers are to ``q, out [B, H, n, d]`` and ``k, v [B, Hkv, n, d]`` with any
strides but a last one of 1; ``lse`` and ``delta`` are ``[B, H, n]``, contiguous.
``begin``, ``end`` ``[B, n]`` are the rows' intervals, ``spans`` ``[B, tiles, 4]`` the walks of
their tiles (``fused.key_spans``, ``fused.row_spans``).
"""

from __future__ import annotations

import triton
import triton.language as tl

from megarc.attention.triton_loops import (
    LOG2E,
    intervals,
    keys_met,
    place,
    rows_met,
    tile_at,
    walk_forward,
    walk_keys,
    walk_rows,
)

# Triton's values have types of their own, which Python's hints do not know.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def forward(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, begin_ptr, end_ptr, spans_ptr,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, out_b, out_h, out_n,
    heads, group, rows, keys, recent, scale,
    ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    INTERVALS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of a tile of rows of one head."""
    tile, batch, head = place(rows, heads, ROWS)
    first, at, d, inside = tile_at(tile * ROWS, rows, ROWS, DIM, WIDTH)
    q = tl.load(q_ptr + batch * q_b + head * q_h + (at[:, None] * q_n + d[None, :]), mask=inside, other=0.0)
    k_ptr += batch * k_b + (head // group) * k_h
    v_ptr += batch * v_b + (head // group) * v_h
    low, full_low, full_high, stop = keys_met(
        first, rows, recent, spans_ptr, batch, tile, ROWS, KEYS, INTERVALS
    )
    begin, end = intervals(begin_ptr, end_ptr, batch, at, rows, recent, INTERVALS)

    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, WIDTH], tl.float32)
    if INTERVALS:
        acc, peak, total = walk_forward(
            acc, peak, total, q, k_ptr, v_ptr, k_n, v_n, at, low, full_low, begin, end,
            keys, recent, scale, KEYS, DIM, WIDTH, True, INTERVALS, WIDE,
        )  # fmt: skip
    acc, peak, total = walk_forward(
        acc, peak, total, q, k_ptr, v_ptr, k_n, v_n, at, full_low, full_high, begin, end,
        keys, recent, scale, KEYS, DIM, WIDTH, False, INTERVALS, WIDE,
    )  # fmt: skip
    acc, peak, total = walk_forward(
        acc, peak, total, q, k_ptr, v_ptr, k_n, v_n, at, full_high, stop, begin, end,
        keys, recent, scale, KEYS, DIM, WIDTH, True, INTERVALS, WIDE,
    )  # fmt: skip
    out = acc / total[:, None]
    out_at = out_ptr + batch * out_b + head * out_h + (at[:, None] * out_n + d[None, :])
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=inside)
    lse = peak * LN2 + tl.log(total)
    tl.store(lse_ptr + (batch * heads + head) * rows + at, lse, mask=at < rows)


@triton.jit
def backward_rows(
    grad_ptr, q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, delta_ptr, grad_q_ptr,
    begin_ptr, end_ptr, spans_ptr,
    grad_b, grad_h, grad_n, q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    out_b, out_h, out_n, grad_q_b, grad_q_h, grad_q_n,
    heads, group, rows, keys, recent, scale,
    ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    INTERVALS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradient of a tile of q; leaves delta, the row sums of grad * out, for ``backward_keys``."""
    tile, batch, head = place(rows, heads, ROWS)
    first, at, d, inside = tile_at(tile * ROWS, rows, ROWS, DIM, WIDTH)
    q = tl.load(q_ptr + batch * q_b + head * q_h + (at[:, None] * q_n + d[None, :]), mask=inside, other=0.0)
    grad_at = grad_ptr + batch * grad_b + head * grad_h + (at[:, None] * grad_n + d[None, :])
    grad = tl.load(grad_at, mask=inside, other=0.0)
    out_at = out_ptr + batch * out_b + head * out_h + (at[:, None] * out_n + d[None, :])
    out = tl.load(out_at, mask=inside, other=0.0)
    line = (batch * heads + head) * rows + at
    delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(delta_ptr + line, delta, mask=at < rows)
    # A row beyond the last has lse = inf, so that its weights are 0.
    lse = tl.load(lse_ptr + line, mask=at < rows, other=float("inf")) * LOG2E
    k_ptr += batch * k_b + (head // group) * k_h
    v_ptr += batch * v_b + (head // group) * v_h
    low, full_low, full_high, stop = keys_met(
        first, rows, recent, spans_ptr, batch, tile, ROWS, KEYS, INTERVALS
    )
    begin, end = intervals(begin_ptr, end_ptr, batch, at, rows, recent, INTERVALS)

    acc = tl.zeros([ROWS, WIDTH], tl.float32)
    if INTERVALS:
        acc = walk_keys(
            acc, q, grad, lse, delta, k_ptr, v_ptr, k_n, v_n, at, low, full_low, begin, end,
            keys, recent, scale, KEYS, DIM, WIDTH, True, INTERVALS, WIDE,
        )  # fmt: skip
    acc = walk_keys(
        acc, q, grad, lse, delta, k_ptr, v_ptr, k_n, v_n, at, full_low, full_high, begin, end,
        keys, recent, scale, KEYS, DIM, WIDTH, False, INTERVALS, WIDE,
    )  # fmt: skip
    acc = walk_keys(
        acc, q, grad, lse, delta, k_ptr, v_ptr, k_n, v_n, at, full_high, stop, begin, end,
        keys, recent, scale, KEYS, DIM, WIDTH, True, INTERVALS, WIDE,
    )  # fmt: skip
    to = grad_q_ptr + batch * grad_q_b + head * grad_q_h + (at[:, None] * grad_q_n + d[None, :])
    tl.store(to, (acc * scale).to(grad_q_ptr.dtype.element_ty), mask=inside)


@triton.jit
def backward_keys(
    grad_ptr, q_ptr, k_ptr, v_ptr, lse_ptr, delta_ptr, grad_k_ptr, grad_v_ptr,
    begin_ptr, end_ptr, spans_ptr,
    grad_b, grad_h, grad_n, q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    grad_k_b, grad_k_h, grad_k_n, grad_v_b, grad_v_h, grad_v_n,
    kv_heads, group, rows, keys, recent, scale,
    ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    INTERVALS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of k and v, summed over the query heads that read them."""
    # Keys of R and the first of C are met by most rows: those tiles start first.
    tile = tl.program_id(0)
    batch = (tl.program_id(1) // kv_heads).to(tl.int64)
    kv_head = tl.program_id(1) % kv_heads
    first, at, d, inside = tile_at(tile * KEYS, keys, KEYS, DIM, WIDTH)
    k = tl.load(
        k_ptr + batch * k_b + kv_head * k_h + (at[:, None] * k_n + d[None, :]), mask=inside, other=0.0
    )
    v = tl.load(
        v_ptr + batch * v_b + kv_head * v_h + (at[:, None] * v_n + d[None, :]), mask=inside, other=0.0
    )
    low, full_low, full_high, stop = rows_met(
        first, rows, keys, recent, spans_ptr, batch, tile, ROWS, KEYS, INTERVALS
    )

    grad_k = tl.zeros([KEYS, WIDTH], tl.float32)
    grad_v = tl.zeros([KEYS, WIDTH], tl.float32)
    for member in range(group):
        head = kv_head * group + member
        q_head = q_ptr + batch * q_b + head * q_h
        grad_head = grad_ptr + batch * grad_b + head * grad_h
        line = (batch * kv_heads * group + head) * rows
        grad_k, grad_v = walk_rows(
            grad_k, grad_v, k, v, q_head, grad_head, lse_ptr + line, delta_ptr + line, q_n, grad_n, at,
            low, full_low, begin_ptr, end_ptr, batch, rows, recent, scale,
            ROWS, DIM, WIDTH, True, INTERVALS, WIDE,
        )  # fmt: skip
        grad_k, grad_v = walk_rows(
            grad_k, grad_v, k, v, q_head, grad_head, lse_ptr + line, delta_ptr + line, q_n, grad_n, at,
            full_low, full_high, begin_ptr, end_ptr, batch, rows, recent, scale,
            ROWS, DIM, WIDTH, False, INTERVALS, WIDE,
        )  # fmt: skip
        if INTERVALS:
            grad_k, grad_v = walk_rows(
                grad_k, grad_v, k, v, q_head, grad_head, lse_ptr + line, delta_ptr + line, q_n, grad_n, at,
                full_high, stop, begin_ptr, end_ptr, batch, rows, recent, scale,
                ROWS, DIM, WIDTH, True, INTERVALS, WIDE,
            )  # fmt: skip
    to_k = grad_k_ptr + batch * grad_k_b + kv_head * grad_k_h + (at[:, None] * grad_k_n + d[None, :])
    to_v = grad_v_ptr + batch * grad_v_b + kv_head * grad_v_h + (at[:, None] * grad_v_n + d[None, :])
    tl.store(to_k, (grad_k * scale).to(grad_k_ptr.dtype.element_ty), mask=inside)
    tl.store(to_v, grad_v.to(grad_v_ptr.dtype.element_ty), mask=inside)


@triton.jit
def merge(
    out_ptr, lse_ptr, other_ptr, other_lse_ptr,
    out_b, out_h, out_n, lse_b, lse_h, lse_n, other_b, other_h, other_n, other_lse_b, other_lse_h, other_lse_n,
    heads, rows, ROWS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Attention over two disjoint sets of keys, in place of the first: ``column.merge_``."""
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    _first, at, d, inside = tile_at(tl.program_id(0) * ROWS, rows, ROWS, DIM, WIDTH)
    out_at = out_ptr + batch * out_b + head * out_h + (at[:, None] * out_n + d[None, :])
    other_at = other_ptr + batch * other_b + head * other_h + (at[:, None] * other_n + d[None, :])
    lse_at = lse_ptr + batch * lse_b + head * lse_h + at * lse_n
    other_lse_at = other_lse_ptr + batch * other_lse_b + head * other_lse_h + at * other_lse_n
    lse = tl.load(lse_at, mask=at < rows, other=0.0)
    other_lse = tl.load(other_lse_at, mask=at < rows, other=0.0)
    peak = tl.maximum(lse, other_lse)
    base = tl.where(peak == float("-inf"), 0.0, peak)
    weight = tl.exp2((lse - base) * LOG2E)
    other_weight = tl.exp2((other_lse - base) * LOG2E)
    total = weight + other_weight
    share = tl.where(total == 0.0, 0.0, weight / tl.where(total == 0.0, 1.0, total))
    other_share = tl.where(total == 0.0, 0.0, 1.0 - share)
    out = tl.load(out_at, mask=inside, other=0.0).to(tl.float32) * share[:, None]
    out += tl.load(other_at, mask=inside, other=0.0).to(tl.float32) * other_share[:, None]
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(lse_at, base + tl.log(total), mask=at < rows)
