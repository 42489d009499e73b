"""Pieces of documents into rows of equal size, none cut: which pieces share a row.

``best_fit`` takes the longest pieces first and puts each where the least room is left
(best fit decreasing; for language models Ding et al. 2024, 2404.10830). ``first_fit`` takes
pieces as they come and puts each into the first row that has room, so that neighbours of the
corpus stay near each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from megarc.data.source import Indices

Fit: TypeAlias = Callable[[Indices, int], Indices]
"""(sizes [pieces], each 1 to the capacity; the capacity) -> the row of each piece, numbered from 0."""


def best_fit(sizes: Indices, capacity: int) -> Indices:
    """Longest first, each into the row that it fills best."""
    rows: Indices = np.empty(len(sizes), dtype=np.int64)
    waiting: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the room that is left in them
    some = 0  # bit r: there are rows with room r
    count = 0
    order = np.argsort(-sizes, kind="stable")
    for piece, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fitting = some >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = waiting[room].pop()
            if not waiting[room]:
                some &= ~(1 << room)
        else:
            room, row, count = capacity, count, count + 1
        rows[piece] = row
        if room > size:
            waiting[room - size].append(row)
            some |= 1 << (room - size)
    return rows


def first_fit(sizes: Indices, capacity: int) -> Indices:
    """In order, each into the first row with room: found in a tree of the room that rows have left."""
    rows: Indices = np.empty(len(sizes), dtype=np.int64)
    width = 1 << max(len(sizes) - 1, 1).bit_length()
    room = [capacity] * (2 * width)  # node i has children 2i and 2i + 1; the leaves are rows
    for piece, size in enumerate(sizes.tolist()):
        node = 1
        while node < width:
            node = 2 * node if room[2 * node] >= size else 2 * node + 1
        rows[piece] = node - width
        room[node] -= size
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return rows


FITS: Mapping[str, Fit] = {"best_fit": best_fit, "first_fit": first_fit}
