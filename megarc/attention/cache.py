"""Keys and values kept between steps of generation: R is encoded once, C a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from megarc.attention.by_head import LayerHeads, attend_by_head
from megarc.attention.dispatch import attend
from megarc.attention.mask import narrowed
from megarc.attention.states import States, StateShapes
from megarc.errors import UserError
from megarc.interval import Intervals, Seen


class Cached(Protocol):
    """What attention layers add keys and values to while a model decodes, and read."""

    @property
    def length(self) -> int:
        """Rows that every layer holds of each text: the position of the next row, where no positions are given."""

    @property
    def last(self) -> slice | Tensor | None:
        """Which of the rows that are given together are the last of their texts; None: one row of each is given.

        Queries may be these rows' alone: where no layer follows, nothing else is read.
        """

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, seen: Seen, heads: LayerHeads) -> Tensor:
        """Keeps new rows of ``layer``; what they read from all rows so far, as ``attend`` gives it.

        Args:
            q: ``[batch, heads, m, head_dim]``, or of the last of these rows alone; k and v
                ``[batch, kv_heads, m, head_dim]``.
            seen: as in ``attend``; rows that follow others see all before them, unless intervals say otherwise.
            heads: of the layer.
        """

    def recall(self, layer: int) -> list[Tensor] | None:
        """The states ``[batch, ..]`` of a recurrent ``layer`` after the rows so far; None where there are none yet."""

    def remember(self, layer: int, states: Sequence[Tensor], rows: int) -> None:
        """Keeps the states of ``layer`` after ``rows`` rows more."""


class Cache:
    """Keys and values of every layer, in buffers made once: texts of one length.

    Args:
        layers: that keep keys and values, all where ``states`` is empty.
        capacity: rows that it can hold, R and C together.
        states: of every layer, the shapes of what it keeps instead.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        kv_heads: int,
        capacity: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
        states: Sequence[StateShapes] = (),
    ) -> None:
        shape = (layers, batch, kv_heads, capacity, head_dim)
        self.k = torch.empty(shape, dtype=dtype, device=device)
        self.v = torch.empty(shape, dtype=dtype, device=device)
        self.places = places_of(layers, states)
        self.states = States(states, batch, dtype, device)
        self._held = [0] * max(layers, len(states))

    @property
    def last(self) -> slice:
        """As ``Cached`` says."""
        return slice(-1, None)

    def parts(self, texts: int) -> Iterator[Cache]:
        """Of so many texts each (all, where a layer keeps states), in the same buffers; all are given as many rows."""
        part, batch = self, self.k.shape[1]
        texts = texts if self.states.empty else batch
        for first in range(0, batch, texts):
            part = copy(self)
            part.k, part.v = (buffer[:, first : first + texts] for buffer in (self.k, self.v))
            part._held = list(self._held)
            yield part
        self._held = part._held

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return self.k.shape[3]

    @property
    def layers(self) -> int:
        """All of them."""
        return len(self._held)

    @property
    def length(self) -> int:
        """Rows that every layer holds: the position of the next row."""
        return min(self._held)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps the next rows ``[batch, kv_heads, m, head_dim]`` of ``layer``.

        Returns:
            All rows of the layer so far, ``[batch, kv_heads, held, head_dim]``, as views.

        Raises:
            UserError: where they do not fit.
        """
        first, last = self._held[layer], self._held[layer] + k.shape[2]
        if last > self.capacity:
            raise UserError(
                f"the cache holds {self.capacity} rows and has no room for row {last}; move the window"
            )
        place = self.places[layer]
        self.k[place, :, :, first:last] = k
        self.v[place, :, :, first:last] = v
        self._held[layer] = last
        return self.k[place, :, :, :last], self.v[place, :, :, :last]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, seen: Seen, heads: LayerHeads) -> Tensor:
        """As ``Cached`` says."""
        first = self._held[layer]
        k, v = self.append(layer, k, v)
        if first and not isinstance(seen, Intervals):
            seen = 0
        seen = narrowed(seen, heads.sliding, len(q), q.shape[2], q.device, k.shape[2] - q.shape[2])
        return attend_cached(q, k, v, seen, engine=heads.engine, causal=heads.causal)

    def recall(self, layer: int) -> list[Tensor] | None:
        """As ``Cached`` says."""
        return self.states.of(layer) if self._held[layer] else None

    def remember(self, layer: int, states: Sequence[Tensor], rows: int) -> None:
        """As ``Cached`` says."""
        self.states.put(layer, states)
        self._held[layer] += rows

    def clear(self) -> None:
        """Forgets every row: the window moves, and R is encoded again."""
        self._held = [0] * len(self._held)


def places_of(layers: int, states: Sequence[StateShapes]) -> dict[int, int]:
    """Where the buffers of keys and values of each layer that has them stand among ``layers`` of them."""
    having = [layer for layer, shapes in enumerate(states) if not shapes] if states else list(range(layers))
    return {layer: place for place, layer in enumerate(having)}


def attend_cached(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Seen = 0,
    *,
    scale: float | None = None,
    engine: str = "auto",
    causal: int = 0,
) -> Tensor:
    """Attention of the last m rows of a window over all rows so far, as ``attend`` would give it.

    Args:
        q: the new rows, ``[batch, heads, m, head_dim]``.
        k: all rows so far, the new ones included, ``[batch, kv_heads, t, head_dim]``.
        v: as ``k``.
        seen: as in ``attend``. Rows of R must come together in the first call (m = t), since each
            sees all of them. Rows that come later are rows of C, or have an interval each:
            ``[batch, m]``, of keys among all t.
        causal: how many query heads, the first ones, see no key behind their row, in R too. All heads of
            rows that come later do so.

    Returns:
        ``[batch, heads, m, head_dim]``.

    Raises:
        UserError: where rows of R come apart, and as ``attend`` does.
    """
    new, held = q.shape[2], k.shape[2]
    if new == held:
        return attend_by_head(q, k, v, seen, causal, partial(attend, scale=scale, engine=engine))
    recent = 0 if isinstance(seen, Intervals) else seen
    if new > held or held - new < recent:
        raise UserError(
            f"attention: rows {held - new} to {held - 1} are given alone, but R is rows 0 to {recent - 1} "
            "and is encoded in one call; give all of R first"
        )
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    mask = None
    if isinstance(seen, Intervals):
        mask = seen.allow(torch.arange(held, device=q.device))[:, None]
    elif new > 1:
        mask = torch.ones(new, held, dtype=torch.bool, device=q.device).tril(held - new)
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=grouped)
