"""Keys and values of texts that are decoded side by side, each of a length of its own.

A text holds a slot. Slots are filled, a window at a time, by ``filling``; texts in slots 0 .. count - 1 get their
next row by ``stepping``. Texts that share a beginning are ``Branches``: they read one copy of its keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from megarc.attention.cache import Cache
from megarc.attention.dispatch import attend
from megarc.interval import Seen


class CacheShape(NamedTuple):
    """What a cache keeps for a row of one text."""

    layers: int
    kv_heads: int
    head_dim: int

    def of(self, texts: int, rows: int) -> tuple[int, int, int, int, int]:
        """Sizes of a cache of so many texts with so many rows: the arguments of ``Cache`` and ``Slots``."""
        return self.layers, texts, self.kv_heads, rows, self.head_dim


class Slots:
    """Buffers of every layer, made once.

    Args:
        slots: texts at most.
        capacity: rows of a text at most.
    """

    def __init__(
        self,
        layers: int,
        slots: int,
        kv_heads: int,
        capacity: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        # Zeros: what lies behind a text's last row is masked, but must be finite.
        shape = (layers, slots, kv_heads, capacity, head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = [0] * slots

    def filling(self, slots: Sequence[int], lengths: Sequence[int], packed: bool) -> Filling:
        """For windows that begin in ``slots``; they may hold others, which are forgotten.

        Args:
            packed: the windows lie end to end in one row of ``lengths`` rows each; else each is a sample.
        """
        for slot, length in zip(slots, lengths, strict=True):
            self.lengths[slot] = length
        return Filling(self, slots, lengths, packed)

    def stepping(self, count: int) -> Step:
        """For one more row of each of the slots 0 .. ``count`` - 1."""
        step = Step(self, count)
        for slot in range(count):
            self.lengths[slot] += 1
        return step

    def move(self, source: int, target: int) -> None:
        """The text of slot ``source`` goes on in slot ``target``."""
        length = self.lengths[target] = self.lengths[source]
        for buffer in (self.k, self.v):
            buffer[:, target, :, :length] = buffer[:, source, :, :length]


class Filling:
    """Beginnings of windows; a ``Cached`` of rows that nothing precedes."""

    def __init__(self, slots: Slots, numbers: Sequence[int], lengths: Sequence[int], packed: bool) -> None:
        self._slots, self._rows = slots, lengths[0]
        device = slots.k.device
        self._numbers = torch.tensor(numbers, device=device)
        self._row: Tensor | None = None
        if packed:
            each = torch.tensor(lengths, device=device)
            self._numbers = self._numbers.repeat_interleave(each)
            self._row = torch.cat([torch.arange(length, device=device) for length in lengths])

    @property
    def length(self) -> int:
        return 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, seen: Seen, engine: str) -> Tensor:
        """As ``Cached`` says: [texts, heads, m, head_dim], or packed [1, heads, rows of all, head_dim]."""
        for buffer, new in ((self._slots.k[layer], k), (self._slots.v[layer], v)):
            if self._row is None:
                buffer[self._numbers, :, : self._rows] = new
            else:
                buffer[self._numbers, :, self._row] = new[0].transpose(0, 1)
        return attend(q, k, v, seen, engine=engine)


class Step:
    """One row more of each text; a ``Cached``.

    Attributes:
        positions: [texts, 1], the number of that row in its window.
    """

    def __init__(self, slots: Slots, count: int) -> None:
        self._slots, self._count = slots, count
        lengths, device = slots.lengths[:count], slots.k.device
        self.length = max(lengths)
        self._row, self._all = torch.tensor(lengths, device=device), torch.arange(count, device=device)
        self.positions = self._row[:, None]
        self._bias: Tensor | None = None
        if min(lengths) < self.length:
            behind = torch.arange(self.length + 1, device=device) > self.positions
            self._bias = torch.zeros(behind.shape, dtype=slots.k.dtype, device=device)
            self._bias = self._bias.masked_fill(behind, float("-inf"))[:, None, None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, seen: Seen, engine: str) -> Tensor:
        """As ``Cached`` says, of m = 1."""
        keys, values = self._slots.k[layer], self._slots.v[layer]
        keys[self._all, :, self._row] = k[:, :, 0]
        values[self._all, :, self._row] = v[:, :, 0]
        keys, values = (x[: self._count, :, : self.length + 1] for x in (keys, values))
        grouped = q.shape[1] != k.shape[1]
        return functional.scaled_dot_product_attention(q, keys, values, self._bias, enable_gqa=grouped)


class Branches:
    """Several texts that go on from each beginning in ``beginning``, in step; a ``Cached``.

    Sample b * ``each`` + i is the i-th of beginning b.

    Args:
        rows: that each gets at most.
    """

    def __init__(self, beginning: Cache, each: int, rows: int) -> None:
        layers, batch, kv_heads, _, head_dim = beginning.k.shape
        self._beginning, self._each = beginning, each
        self._own = Cache(
            layers, batch * each, kv_heads, rows, head_dim, beginning.k.dtype, beginning.k.device
        )

    @property
    def length(self) -> int:
        return self._beginning.length + self._own.length

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, seen: Seen, engine: str) -> Tensor:
        """As ``Cached`` says, of m = 1. One softmax over the scores of both parts."""
        held = self._beginning.length
        k, v = self._own.append(layer, k, v)
        first_k, first_v = (x[layer, :, :, :held] for x in (self._beginning.k, self._beginning.v))
        batch, kv_heads = first_k.shape[:2]
        # [batch * each, heads, 1, d] -> [batch, each, kv_heads, heads of a kv_head, d]
        q = q.reshape(batch, self._each, kv_heads, -1, q.shape[-1]) * q.shape[-1] ** -0.5
        together = q.transpose(1, 2).flatten(2, 3)  # [batch, kv_heads, each * group, d]
        group = q.shape[3]
        alone = q.flatten(0, 1)  # [batch * each, kv_heads, group, d]
        shared = (together @ first_k.transpose(2, 3)).unflatten(2, (self._each, group))
        scores = torch.cat([shared.transpose(1, 2).flatten(0, 1), alone @ k.transpose(2, 3)], dim=-1)
        p = scores.float().softmax(-1).to(q.dtype) if q.dtype.itemsize < 4 else scores.softmax(-1)
        both = p[..., :held].unflatten(0, (batch, self._each)).transpose(1, 2).flatten(2, 3) @ first_v
        read = both.unflatten(2, (self._each, group)).transpose(1, 2).flatten(0, 1) + p[..., held:] @ v
        return read.flatten(1, 2)[:, :, None]
