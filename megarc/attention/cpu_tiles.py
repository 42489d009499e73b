"""A plain window on torch's flash attention for CPU, in rectangles.

    all n rows  x  the r keys of R     no mask
    the c rows of C  x  the c keys of C    causal: squares on the diagonal, and below them rectangles without a mask

torch's kernel for CPU computes a causal square of up to 512 rows as a whole, and of larger ones all that lies in a
block with an allowed pair. So the causal square is halved: its lower left quarter is a rectangle, and the two squares
on the diagonal are halved again, as long as that pays. What is left over of the forbidden pairs is half of the small
squares.

Parts of the same rows are merged by the logarithm of their sums of exponentials; the backward pass of each is given
the merged output and log-sum-exp (``column_split.py``), and its shares are added where they belong, in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from megarc.attention import column_split
from megarc.attention.attention_call import Grads, Inputs, Outputs
from megarc.attention.autograd_operator import lse_dtype
from megarc.attention.column_split import Flash

_LEAST_ROWS = 64  # a causal square of no more rows is left whole; 16 at least
_LEAST_PRODUCTS = 1 << 23  # of numbers, in a square that is halved: for less, more calls cost more
_KEYS = 256  # of R in a rectangle of the backward pass: what the kernel keeps of it fits into a core's cache
_ELEMENTS = 1 << 18  # of the queries that are worked on together, about: what is added up stays in the cache


@dataclass(frozen=True, slots=True)
class _Tile:
    """Rows, and the keys that they see: all of them, or (``causal``) as in a causal square."""

    rows: slice
    keys: slice
    causal: bool


def forward(flash: Flash, call: Inputs, recent: int) -> tuple[Tensor, Tensor]:
    """Output ``[B, H, m, d]`` and log-sum-exp ``[B, H, m]`` of a window's last m rows."""
    tiles = _tiles(call, recent)
    first = next(tiles)
    part = call.part(first.rows, first.keys)
    if first.rows == slice(0, call.rows):
        out, lse = flash.forward(part, first.causal)
    else:
        out, lse = torch.empty_like(call.q), call.q.new_empty(call.q.shape[:3], dtype=lse_dtype(call.q))
        out[:, :, first.rows], lse[:, :, first.rows] = flash.forward(part, first.causal)
    for tile in tiles:
        found, found_lse = flash.forward(call.part(tile.rows, tile.keys), tile.causal)
        if tile.causal and recent == 0:  # nothing was known of these rows
            out[:, :, tile.rows], lse[:, :, tile.rows] = found, found_lse
        else:
            _merge_(out[:, :, tile.rows], lse[:, :, tile.rows], found, found_lse)
    return out, lse


def backward(flash: Flash, call: Inputs, outputs: Outputs, recent: int) -> Grads:
    """Gradients of q, k and v, shaped as they are."""
    tiles = list(_tiles(call, recent, _KEYS))
    if len(tiles) == 1:
        return flash.backward(call, outputs, tiles[0].causal)
    grads = torch.empty_like(call.q), torch.empty_like(call.k), torch.empty_like(call.v)
    for sample in _samples(call):
        into = grads[0][sample], grads[1][sample], grads[2][sample]
        _add_up(flash, call.part(sample=sample), outputs.part(sample=sample), tiles, into)
    return grads


def cost(call: Inputs, recent: int) -> tuple[int, int]:
    """Calls of a forward pass, and the pairs of each sample and head that they compute."""
    tiles = list(_tiles(call, recent))
    return len(tiles), sum((t.rows.stop - t.rows.start) * (t.keys.stop - t.keys.start) for t in tiles)


def _add_up(flash: Flash, call: Inputs, outputs: Outputs, tiles: list[_Tile], into: Grads) -> None:
    """Writes the gradients of some samples into memory that holds nothing yet."""
    rows_done = keys_done = 0  # those before them have a gradient: tiles come in such an order
    for tile in tiles:
        of_q, *of_keys = flash.backward(call.part(tile.rows, tile.keys), outputs.part(tile.rows), tile.causal)
        _put(into[0][:, :, tile.rows], of_q, tile.rows.stop <= rows_done)
        for whole, part in zip(into[1:], of_keys, strict=True):
            _put(whole[:, :, tile.keys], part, tile.keys.stop <= keys_done)
        rows_done, keys_done = max(rows_done, tile.rows.stop), max(keys_done, tile.keys.stop)


def _put(place: Tensor, part: Tensor, more: bool) -> None:
    if more:
        place.add_(part)
    else:
        place.copy_(part)


def _samples(call: Inputs) -> Iterator[slice]:
    """The samples in groups: no smaller than gives every thread a head or two."""
    batch, heads, rows, width = call.q.shape
    size = max(1, _ELEMENTS // (heads * rows * width), -(-2 * torch.get_num_threads() // heads))
    for start in range(0, batch, size):
        yield slice(start, start + size)


def _tiles(call: Inputs, recent: int, most_keys: int | None = None) -> Iterator[_Tile]:
    """All allowed pairs, once each: R, if there is one, then squares before the rectangles that share their rows.

    Args:
        most_keys: of R in one tile; None: any number.
    """
    for start in range(0, recent, most_keys or max(1, recent)):
        yield _Tile(slice(0, call.rows), slice(start, min(recent, start + (most_keys or recent))), False)
    keys = call.k.shape[2]
    if recent < keys:
        batch, heads, rows, width = call.q.shape
        yield from _halved(recent, keys, rows - keys, batch * heads * width)


def _halved(start: int, stop: int, shift: int, products: int) -> Iterator[_Tile]:
    """The causal square of the keys ``start .. stop-1``; key j is row ``j + shift``."""
    size = stop - start
    if size <= _LEAST_ROWS or size * size * products < _LEAST_PRODUCTS:
        yield _Tile(slice(start + shift, stop + shift), slice(start, stop), True)
        return
    half = start + -(-size // 32) * 16  # a whole number of the kernel's vectors
    yield from _halved(start, half, shift, products)
    yield from _halved(half, stop, shift, products)
    yield _Tile(slice(half + shift, stop + shift), slice(start, half), False)


def _merge_(out: Tensor, lse: Tensor, other_out: Tensor, other_lse: Tensor) -> None:
    """``column_split.merge_`` in one pass over the outputs, for parts in which each row sees a key."""
    if out.dtype != lse.dtype:  # weights in half precision would not do
        column_split.merge_(out, lse, other_out, other_lse)
        return
    out.lerp_(other_out, torch.sigmoid(other_lse - lse).unsqueeze(-1))
    torch.logaddexp(lse, other_lse, out=lse)
