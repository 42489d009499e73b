"""The parts of the fused kernels (``triton_kernels.py``): where a program stands, how far it walks, the walks.

Every walk steps over tiles of keys or rows from ``start`` to ``stop``; one that is
``MASKED`` asks the window for each pair, one that is not knows that all are allowed.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Triton's values have types of their own, which Python's hints do not know.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def place(rows, heads, ROWS: tl.constexpr):
    """The tile of rows, the sample and the head of this program; the longest walks start first."""
    tile = tl.cdiv(rows, ROWS) - 1 - tl.program_id(0)
    batch = (tl.program_id(1) // heads).to(tl.int64)
    return tile, batch, tl.program_id(1) % heads


@triton.jit
def tile_at(first, rows, SIZE: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Its first row, its rows, its columns, and which of them exist."""
    at = first + tl.arange(0, SIZE)
    d = tl.arange(0, WIDTH)
    return first, at, d, (at[:, None] < rows) & (d[None, :] < DIM)


@triton.jit
def keys_met(
    first, rows, recent, spans_ptr, batch, tile,
    ROWS: tl.constexpr, KEYS: tl.constexpr, INTERVALS: tl.constexpr,
):  # fmt: skip
    """A tile of rows takes keys full_low .. full_high-1 without a mask, low .. stop-1 else with one."""
    if INTERVALS:
        return spans(spans_ptr, batch, tile, rows, ROWS)
    stop = tl.maximum(recent, tl.minimum(first + ROWS, rows))
    return 0, 0, tl.maximum(recent, first + 1) // KEYS * KEYS, stop


@triton.jit
def rows_met(
    first, rows, keys, recent, spans_ptr, batch, tile,
    ROWS: tl.constexpr, KEYS: tl.constexpr, INTERVALS: tl.constexpr,
):  # fmt: skip
    """A tile of keys meets rows full_low .. full_high-1 without a mask, low .. stop-1 else with one."""
    if INTERVALS:
        return spans(spans_ptr, batch, tile, keys, KEYS)
    # A key of R is seen by every row, one of C from its own row on.
    low = tl.where(first < recent, 0, first // ROWS * ROWS)
    last = tl.minimum(first + KEYS, rows) - 1
    return low, tl.where(last < recent, low, tl.cdiv(last, ROWS) * ROWS), rows, rows


@triton.jit
def spans(spans_ptr, batch, tile, count, SIZE: tl.constexpr):
    at = spans_ptr + (batch * tl.cdiv(count, SIZE) + tile) * 4
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)


@triton.jit
def intervals(begin_ptr, end_ptr, batch, row, rows, recent, INTERVALS: tl.constexpr):
    """The first key that each row sees and the one behind the last: of ``megarc.window`` or as given.

    A row beyond the last one sees a key all the same, so that no sum of its weights is 0.
    """
    if INTERVALS:
        begin = tl.load(begin_ptr + batch * rows + row, mask=row < rows, other=0)
        end = tl.load(end_ptr + batch * rows + row, mask=row < rows, other=rows)
        return begin, end
    return tl.zeros_like(row), tl.maximum(row + 1, recent)


@triton.jit
def visible(row, key, begin, end, recent, INTERVALS: tl.constexpr):
    """The mask of ``megarc.window.allow``, or of ``megarc.interval``; all broadcast."""
    if INTERVALS:
        return (begin <= key) & (key < end)
    return (key < recent) | (key <= row)


@triton.jit
def dot(a, b, WIDE: tl.constexpr):
    """a @ b in float32. ``WIDE``: widened first (the interpreter cannot multiply bfloat16)."""
    if WIDE:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b)


# ---- the walks


@triton.jit
def walk_forward(
    acc, peak, total, q, k_ptr, v_ptr, k_n, v_n, at, start, stop, begin, end,
    keys, recent, scale,
    KEYS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    MASKED: tl.constexpr, INTERVALS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    d = tl.arange(0, WIDTH)
    for first in range(start, stop, KEYS):
        key = first + tl.arange(0, KEYS)
        there = (key[:, None] < keys) & (d[None, :] < DIM)
        k = tl.load(k_ptr + (key[:, None] * k_n + d[None, :]), mask=there, other=0.0)
        scores = dot(q, tl.trans(k), WIDE) * (scale * LOG2E)
        if MASKED:
            allowed = visible(at[:, None], key[None, :], begin[:, None], end[:, None], recent, INTERVALS)
            scores = tl.where(allowed, scores, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))
        # A row that has met none of its keys yet has the peak -inf; -inf - -inf is no number.
        base = tl.where(new_peak == float("-inf"), 0.0, new_peak) if MASKED else new_peak
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(peak - base)
        total = total * shrink + tl.sum(weights, 1)
        v = tl.load(v_ptr + (key[:, None] * v_n + d[None, :]), mask=there, other=0.0)
        acc = acc * shrink[:, None] + dot(weights.to(v.dtype), v, WIDE)
        peak = new_peak
    return acc, peak, total


@triton.jit
def walk_keys(
    acc, q, grad, lse, delta, k_ptr, v_ptr, k_n, v_n, at, start, stop, begin, end,
    keys, recent, scale,
    KEYS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    MASKED: tl.constexpr, INTERVALS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    d = tl.arange(0, WIDTH)
    for first in range(start, stop, KEYS):
        key = first + tl.arange(0, KEYS)
        there = (key[:, None] < keys) & (d[None, :] < DIM)
        k = tl.load(k_ptr + (key[:, None] * k_n + d[None, :]), mask=there, other=0.0)
        v = tl.load(v_ptr + (key[:, None] * v_n + d[None, :]), mask=there, other=0.0)
        weights = tl.exp2(dot(q, tl.trans(k), WIDE) * (scale * LOG2E) - lse[:, None])
        if MASKED:
            allowed = visible(at[:, None], key[None, :], begin[:, None], end[:, None], recent, INTERVALS)
            weights = tl.where(allowed, weights, 0.0)
        grad_scores = weights * (dot(grad, tl.trans(v), WIDE) - delta[:, None])
        acc += dot(grad_scores.to(k.dtype), k, WIDE)
    return acc


@triton.jit
def walk_rows(
    grad_k, grad_v, k, v, q_ptr, grad_ptr, lse_ptr, delta_ptr, q_n, grad_n, at,
    start, stop, begin_ptr, end_ptr, batch, rows, recent, scale,
    ROWS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    MASKED: tl.constexpr, INTERVALS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    d = tl.arange(0, WIDTH)
    for first in range(start, stop, ROWS):
        row = first + tl.arange(0, ROWS)
        there = (row[:, None] < rows) & (d[None, :] < DIM)
        q = tl.load(q_ptr + (row[:, None] * q_n + d[None, :]), mask=there, other=0.0)
        grad = tl.load(grad_ptr + (row[:, None] * grad_n + d[None, :]), mask=there, other=0.0)
        lse = tl.load(lse_ptr + row, mask=row < rows, other=float("inf")) * LOG2E
        delta = tl.load(delta_ptr + row, mask=row < rows, other=0.0)
        # Keys stand in rows here: [KEYS, ROWS], so that both sums below need no transposed weights.
        weights = tl.exp2(dot(k, tl.trans(q), WIDE) * (scale * LOG2E) - lse[None, :])
        if MASKED:
            begin, end = intervals(begin_ptr, end_ptr, batch, row, rows, recent, INTERVALS)
            allowed = visible(row[None, :], at[:, None], begin[None, :], end[None, :], recent, INTERVALS)
            weights = tl.where(allowed, weights, 0.0)
        grad_v += dot(weights.to(grad.dtype), grad, WIDE)
        grad_scores = weights * (dot(v, tl.trans(grad), WIDE) - delta[None, :])
        grad_k += dot(grad_scores.to(q.dtype), q, WIDE)
    return grad_k, grad_v
