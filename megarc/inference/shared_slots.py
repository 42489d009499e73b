"""Keys and values of texts that are generated side by side. Each rank of a group keeps those of some rows.

All ranks encode a window's beginning, each its own rows (``own_rows.py``). Every rank computes each further row, and
the rank with the fewest rows of that text keeps it. Each rank attends to its own keys, and the results are merged by
their log-sum-exp. So a rank needs memory for 1 / ranks of a window's keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from megarc.attention import CacheShape, LayerHeads, attend, attend_by_head
from megarc.errors import UserError
from megarc.inference.own_rows import OwnRows
from megarc.interval import Seen
from megarc.parallel import Group, RankRows
from megarc.parallel.tensor import gather_into

_EMPTY = torch.iinfo(torch.int32).max  # the number of a row that is not there: behind all others


class SharedSlots:
    """Buffers of every layer, made once; what ``Slots`` is on one rank.

    Args:
        texts: at most.
        rows: of a text at most, on all ranks together.
    """

    packs = False

    def __init__(
        self,
        shape: CacheShape,
        texts: int,
        rows: int,
        dtype: torch.dtype,
        device: torch.device,
        group: Group,
    ) -> None:
        if any(layer.states for layer in shape.layers):
            raise UserError(
                f"{group.size} context ranks cannot write texts with model.mixers other than attention: their state "
                "goes from row to row; leave --context out"
            )
        layers, heads, width = shape.keys()
        capacity = -(-rows // group.size)
        self.group = group
        self.k = torch.zeros((layers, texts, heads, capacity, width), dtype=dtype, device=device)
        self.v = torch.zeros_like(self.k)
        self.numbers = torch.full((texts, capacity), _EMPTY, dtype=torch.int32, device=device)
        self.held = [[0] * group.size for _ in range(texts)]  # rows of each text on each rank

    def filling(self, slots: Sequence[int], own: OwnRows) -> SharedFilling:
        """For windows of one length that begin in ``slots``; they may hold others, which are forgotten."""
        texts = torch.tensor(slots, device=self.k.device)
        present = torch.as_tensor(own.present).to(self.numbers)
        self.numbers[texts] = _EMPTY
        self.numbers[texts, : len(present)] = present
        for slot in slots:
            self.held[slot] = list(own.held)
        return SharedFilling(self, texts, len(present))

    def stepping(self, count: int) -> SharedStep:
        """For one more row of each of the slots 0 .. ``count`` - 1."""
        return SharedStep(self, count)

    def move(self, source: int, target: int) -> None:
        """The text of slot ``source`` goes on in slot ``target``."""
        self.held[target] = list(self.held[source])
        self.numbers[target] = self.numbers[source]
        for buffer in (self.k, self.v):
            buffer[:, target] = buffer[:, source]


class _NoStates:
    """The part of ``Cached`` that no layer without states asks for."""

    last = None

    def recall(self, layer: int) -> None:
        """Nothing precedes."""

    def remember(self, layer: int, states: Sequence[Tensor], rows: int) -> None:
        """There is nothing to keep."""


class SharedFilling(_NoStates):
    """Beginnings of windows of one length; a ``Cached``. A rank brings its own rows and keeps the first ``present``."""

    length = 0

    def __init__(self, slots: SharedSlots, texts: Tensor, present: int) -> None:
        self._slots, self._texts, self._present = slots, texts, present

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, seen: Seen, heads: LayerHeads) -> Tensor:
        """As ``Cached`` says, of this rank's rows."""
        assert isinstance(seen, RankRows)
        for buffer, new in ((self._slots.k[layer], k), (self._slots.v[layer], v)):
            buffer[self._texts, :, : self._present] = new[:, :, : self._present]
        keys, values = seen.of_window(k, v)
        read, own = partial(attend, engine=heads.engine), seen.under(heads.sliding)
        return attend_by_head(q, keys, values, own, heads.causal, read, seen.row_numbers)


class SharedStep(_NoStates):
    """One row more of each text; a ``Cached``.

    Attributes:
        positions: [texts, 1], the number of that row in its window.
    """

    def __init__(self, slots: SharedSlots, count: int) -> None:
        self._slots, self._count = slots, count
        device, rank = slots.k.device, slots.group.rank
        held = slots.held[:count]
        numbers = torch.tensor([sum(each) for each in held], dtype=torch.int32, device=device)
        keepers = [min(range(slots.group.size), key=each.__getitem__) for each in held]
        mine = [text for text, keeper in enumerate(keepers) if keeper == rank]
        self._mine = torch.tensor(mine, dtype=torch.long, device=device)
        self._at = torch.tensor([held[text][rank] for text in mine], dtype=torch.long, device=device)
        slots.numbers[self._mine, self._at] = numbers[self._mine]
        for each, keeper in zip(held, keepers, strict=True):
            each[keeper] += 1
        self._most = max(each[rank] for each in held)
        self.positions = numbers[:, None].long()
        self.length = int(numbers.max())
        self._hidden = dict[int | None, Tensor]()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, seen: Seen, heads: LayerHeads) -> Tensor:
        """As ``Cached`` says, of m = 1."""
        keys, values = self._slots.k[layer], self._slots.v[layer]
        keys[self._mine, :, self._at] = k[self._mine, :, 0]
        values[self._mine, :, self._at] = v[self._mine, :, 0]
        keys, values = (x[: self._count, :, : self._most] for x in (keys, values))
        # [texts, heads, 1, d] -> [texts, kv_heads, group, d]
        grouped = q.reshape(len(q), k.shape[1], -1, q.shape[-1])
        out, weight = _read(grouped, keys, values, self._unseen(heads.sliding))
        return merged(out, weight, self._slots.group).reshape(q.shape).to(q.dtype)

    def _unseen(self, sliding: int | None) -> Tensor:
        """[texts, rows]: keys that the new rows do not see; the same for all layers."""
        if sliding not in self._hidden:
            numbers = self._slots.numbers[: self._count, : self._most]
            hidden = numbers > self.positions
            if sliding is not None:
                hidden |= numbers <= self.positions - sliding
            self._hidden[sliding] = hidden
        return self._hidden[sliding]


def _read(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of ``q`` [texts, kv_heads, group, d] over this rank's keys, and the log-sum-exp of the scores.

    Float32 or wider: [texts, kv_heads, group, d] and [texts, kv_heads, group]. Of no key: 0, and -inf.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q @ k.mT).to(wide) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(hidden[:, None, None], float("-inf"))
    if not scores.shape[-1]:
        return q.new_zeros(q.shape, dtype=wide), q.new_full(q.shape[:-1], float("-inf"), dtype=wide)
    total = scores.logsumexp(-1)
    shares = (scores - total.clamp_min(torch.finfo(wide).min)[..., None]).exp()
    return shares @ v.to(wide), total


def merged(out: Tensor, total: Tensor, group: Group) -> Tensor:
    """What all ranks read together: the mean of their ``out`` [.., d] by ``exp(total)`` [..]; one of them has a key."""
    own = torch.cat((out, total[..., None]), -1)
    everyone = own.new_empty((group.size, *own.shape))
    gather_into(everyone.flatten(0, 1), own, group)
    shares = everyone[..., -1:].softmax(0)
    return (shares * everyone[..., :-1]).sum(0)
