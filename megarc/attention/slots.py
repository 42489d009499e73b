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

from megarc.attention.by_head import LayerHeads
from megarc.attention.cache import Cache, attend_cached, places_of
from megarc.attention.mask import narrowed
from megarc.attention.states import States, StateShapes
from megarc.interval import Seen


class LayerCache(NamedTuple):
    """What a cache keeps of one layer of one text: keys and values of each row, or states of a fixed size."""

    kv_heads: int = 0
    head_dim: int = 0
    states: StateShapes = ()


class CacheShape(NamedTuple):
    """What a cache keeps of all layers of one text."""

    layers: Sequence[LayerCache]

    def cache(self, texts: int, rows: int, dtype: torch.dtype, device: torch.device) -> Cache:
        """For so many texts of one length, of at most so many rows."""
        kept, heads, width = self.keys()
        return Cache(kept, texts, heads, rows, width, dtype, device, self._states())

    def slots(self, texts: int, rows: int, dtype: torch.dtype, device: torch.device) -> Slots:
        """For so many texts of a length of their own, of at most so many rows."""
        kept, heads, width = self.keys()
        return Slots(kept, texts, heads, rows, width, dtype, device, self._states())

    def keys(self) -> tuple[int, int, int]:
        """How many layers keep keys and values, of so many heads, of such a width: the same in all of them."""
        having = [layer for layer in self.layers if not layer.states] or [LayerCache()]
        assert len(set(having)) == 1, "layers that keep keys keep as many of each row"
        return sum(not layer.states for layer in self.layers), having[0].kv_heads, having[0].head_dim

    def _states(self) -> list[StateShapes]:
        return [layer.states for layer in self.layers]


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
        states: Sequence[StateShapes] = (),
    ) -> None:
        # Zeros: what lies behind a text's last row is masked, but must be finite.
        shape = (layers, slots, kv_heads, capacity, head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self.places = places_of(layers, states)
        self.states = States(states, slots, dtype, device)
        self.lengths = [0] * slots

    @property
    def packs(self) -> bool:
        """Whether windows may lie end to end in one row: not where a layer keeps states."""
        return self.states.empty

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
        self.states.move(source, target)


class Filling:
    """Beginnings of windows; a ``Cached`` of rows that nothing precedes."""

    def __init__(self, slots: Slots, numbers: Sequence[int], lengths: Sequence[int], packed: bool) -> None:
        self._slots, self._rows = slots, lengths[0]
        device = slots.k.device
        self._texts = self._numbers = torch.tensor(numbers, device=device)
        self._row: Tensor | None = None
        self.last: slice | Tensor | None = slice(-1, None)
        if packed:
            self._each = torch.tensor(lengths, device=device)
            self._numbers = self._numbers.repeat_interleave(self._each)
            self._row = torch.cat([torch.arange(length, device=device) for length in lengths])
            self.last = self._each.cumsum(0) - 1

    @property
    def length(self) -> int:
        return 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, seen: Seen, heads: LayerHeads) -> Tensor:
        """As ``Cached`` says: [texts, heads, m, head_dim], or packed [1, heads, rows of all, head_dim]."""
        place = self._slots.places[layer]
        for buffer, new in ((self._slots.k[place], k), (self._slots.v[place], v)):
            if self._row is None:
                buffer[self._numbers, :, : self._rows] = new
            else:
                buffer[self._numbers, :, self._row] = new[0].transpose(0, 1)
        if self._row is None or q.shape[2] == k.shape[2]:
            seen = narrowed(seen, heads.sliding, len(q), q.shape[2], q.device, k.shape[2] - q.shape[2])
            return attend_cached(q, k, v, seen, engine=heads.engine, causal=heads.causal)
        return self._last(place, q, heads.sliding)

    def _last(self, place: int, q: Tensor, sliding: int | None) -> Tensor:
        """What the last row of each packed text, ``q`` [1, heads, texts, head_dim], reads: all of its window."""
        most = int(self._each.max())
        k, v = (x[place, self._texts, :, :most] for x in (self._slots.k, self._slots.v))
        bias, grouped = _bias(self._each[:, None] - 1, most, q.dtype, sliding), q.shape[1] != k.shape[1]
        q = q.transpose(0, 2)  # a sample for each text
        return functional.scaled_dot_product_attention(q, k, v, bias, enable_gqa=grouped).transpose(0, 2)

    def recall(self, layer: int) -> None:
        """As ``Cached`` says: nothing precedes."""

    def remember(self, layer: int, states: Sequence[Tensor], rows: int) -> None:
        """As ``Cached`` says; windows that lie end to end are none that a recurrence reads (``Decoder``)."""
        assert self._row is None, "a recurrent layer begins windows of one length"
        self._slots.states.put(layer, states, self._numbers)


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
        self.last = None
        self._alike, self._biases = min(lengths) == self.length, dict[int | None, Tensor]()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, seen: Seen, heads: LayerHeads) -> Tensor:
        """As ``Cached`` says, of m = 1."""
        place = self._slots.places[layer]
        keys, values = self._slots.k[place], self._slots.v[place]
        keys[self._all, :, self._row] = k[:, :, 0]
        values[self._all, :, self._row] = v[:, :, 0]
        keys, values = (x[: self._count, :, : self.length + 1] for x in (keys, values))
        bias, grouped = self._bias(heads.sliding), q.shape[1] != k.shape[1]
        return functional.scaled_dot_product_attention(q, keys, values, bias, enable_gqa=grouped)

    def _bias(self, sliding: int | None) -> Tensor | None:
        """The same for all layers; None where every text sees all keys."""
        if self._alike and (sliding is None or self.length < sliding):
            return None
        if sliding not in self._biases:
            self._biases[sliding] = _bias(self.positions, self.length + 1, self._slots.k.dtype, sliding)
        return self._biases[sliding]

    def recall(self, layer: int) -> list[Tensor] | None:
        """As ``Cached`` says."""
        return self._slots.states.of(layer, slice(self._count))

    def remember(self, layer: int, states: Sequence[Tensor], rows: int) -> None:
        """As ``Cached`` says."""
        self._slots.states.put(layer, states, slice(self._count))


class Branches:
    """Several texts that go on from each beginning in ``beginning``, in step; a ``Cached``.

    Sample b * ``each`` + i is the i-th of beginning b. All rows of a beginning and its texts lie in one buffer,
    which the texts' queries read together under a mask: scores of other texts' rows are computed for nothing,
    but one product of matrices is faster than many small ones. So ``each`` should be small.

    Args:
        rows: that each gets at most.
    """

    last = None

    def __init__(self, beginning: Cache, each: int, rows: int) -> None:
        self._held, self._each = beginning.length, each
        layers, batch, kv_heads, _, head_dim = beginning.k.shape
        all_rows = self._held + each * rows
        # The next row of every text stands beside those of the others. Keys are transposed, as the product reads them.
        self._keys = beginning.k.new_empty(layers, batch * kv_heads, head_dim, all_rows)
        self._values = beginning.k.new_empty(layers, batch * kv_heads, all_rows, head_dim)
        self._keys[..., : self._held] = beginning.k[:, :, :, : self._held].flatten(1, 2).transpose(2, 3)
        self._values[:, :, : self._held] = beginning.v[:, :, :, : self._held].flatten(1, 2)
        others = torch.arange(each * rows, device=beginning.k.device) % each
        bias = beginning.k.new_zeros(each, all_rows)
        own = torch.arange(each, device=others.device)[:, None]
        bias[:, self._held :].masked_fill_(others != own, float("-inf"))
        self._bias, self._places = bias, beginning.places
        self._states, self._rows = beginning.states.repeated(each), [0] * beginning.layers

    @property
    def length(self) -> int:
        return self._held + min(self._rows)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, seen: Seen, heads: LayerHeads) -> Tensor:
        """As ``Cached`` says, of m = 1."""
        place, kv_heads, d = self._places[layer], k.shape[1], k.shape[3]
        group, first = q.shape[1] // kv_heads, self._held + self._rows[layer] * self._each
        seen_keys = slice(self._first_seen(self._rows[layer], heads.sliding), first + self._each)
        self._rows[layer] += 1
        last = first + self._each
        # [batch * each, kv_heads, 1, d] -> [batch, kv_heads, each, d]
        k, v = (x.view(-1, self._each, kv_heads, d).transpose(1, 2) for x in (k, v))
        self._keys[place, :, :, first:last] = k.flatten(0, 1).transpose(1, 2)
        self._values[place, :, first:last] = v.flatten(0, 1)
        # [batch * each, heads, 1, d] -> [batch * kv_heads, each * group, d]
        q = q.reshape(-1, self._each, kv_heads, group, d).transpose(1, 2).reshape(-1, self._each * group, d)
        bias = self._bias[:, seen_keys]
        bias = bias.repeat_interleave(group, 0) if group > 1 else bias
        scores = torch.baddbmm(bias[None], q, self._keys[place, :, :, seen_keys], alpha=d**-0.5)
        p = scores.float().softmax(-1).to(q.dtype) if q.dtype.itemsize < 4 else scores.softmax(-1)
        read = (p @ self._values[place, :, seen_keys]).view(-1, kv_heads, self._each, group, d)
        return read.transpose(1, 2).reshape(-1, kv_heads * group, 1, d)

    def _first_seen(self, row: int, sliding: int | None) -> int:
        """Where the keys begin in the buffer that row ``row`` behind the beginning sees."""
        begin = 0 if sliding is None else max(0, self._held + row + 1 - sliding)
        return begin if begin <= self._held else self._held + (begin - self._held) * self._each

    def recall(self, layer: int) -> list[Tensor] | None:
        """As ``Cached`` says."""
        return self._states.of(layer)

    def remember(self, layer: int, states: Sequence[Tensor], rows: int) -> None:
        """As ``Cached`` says."""
        self._states.put(layer, states)
        self._rows[layer] += rows


def _bias(last: Tensor, rows: int, dtype: torch.dtype, sliding: int | None) -> Tensor:
    """[texts, 1, 1, rows]: 0 for the last ``sliding`` rows up to ``last`` [texts, 1] (None: all of them), else -inf."""
    row = torch.arange(rows, device=last.device)
    hidden = row > last
    if sliding is not None:
        hidden |= row <= last - sliding
    bias = torch.zeros(hidden.shape, dtype=dtype, device=last.device)
    return bias.masked_fill_(hidden, float("-inf"))[:, None, None]
