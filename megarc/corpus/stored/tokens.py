"""The tokens of a corpus in a store, with the part of an array's interface that readers of corpora use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.corpus.stored.blocks import Blocks
from megarc.errors import UserError

Numbers: TypeAlias = npt.NDArray[np.int64]


class StoredTokens:
    """All tokens end to end, ``[tokens]``: slices are read when they are asked for, and copied.

    Raises:
        UserError: of every reader: as ``Blocks``.
    """

    ndim = 1

    def __init__(self, blocks: Blocks, dtype: np.dtype[Any]) -> None:
        self.blocks, self.dtype = blocks, dtype
        self._count = blocks.file.bytes // dtype.itemsize
        self._per_block = blocks.block // dtype.itemsize

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int]:
        return (self._count,)

    def __getitem__(self, item: slice | int | Numbers) -> Any:
        if isinstance(item, np.ndarray):
            return self._at(item)
        if isinstance(item, slice):
            start, stop, step = item.indices(self._count)
            return self.read([start], max(stop - start, 0))[0][::step]
        place = range(self._count)[item]
        return self.read([place], 1)[0, 0]

    def __array__(self, *_: Any, **__: Any) -> npt.NDArray[Any]:
        raise UserError(
            f"{self.blocks.file.url} would be read as a whole, which is refused for a store; copy the corpus to a disk"
        )

    def read(self, starts: Sequence[int] | Numbers, length: int) -> npt.NDArray[Any]:
        """``length`` tokens from each of ``starts`` [B] on: [B, length]."""
        begins: Numbers = np.asarray(starts, dtype=np.int64)
        found = np.empty((len(begins), length), self.dtype)
        if not length:
            return found
        if not len(begins) or begins.min() < 0 or begins.max() + length > self._count:
            raise IndexError(f"{length} tokens from {starts} on, of {self._count}")
        first, last = begins // self._per_block, (begins + length - 1) // self._per_block
        blocks = self._blocks(first, last)
        offsets = begins - first * self._per_block
        rows = zip(offsets.tolist(), first.tolist(), last.tolist(), strict=True)
        for row, (offset, number, end) in enumerate(rows):
            if number == end:
                found[row] = blocks[number][offset : offset + length]
                continue
            done = 0
            for each in range(number, end + 1):
                part = blocks[each][offset : offset + length - done]
                found[row, done : done + len(part)] = part
                done, offset = done + len(part), 0
        return found

    def _at(self, places: Numbers) -> npt.NDArray[Any]:
        """The tokens at ``places`` [..]."""
        if places.size and (places.min() < 0 or places.max() >= self._count):
            raise IndexError(f"places {places.min()} to {places.max()}, of {self._count}")
        number, offset = np.divmod(places, self._per_block)
        found = np.empty(places.shape, self.dtype)
        blocks = self._blocks(*(np.unique(number),) * 2)
        for which, block in blocks.items():
            mine = number == which
            found[mine] = block[offset[mine]]
        return found

    def announce(self, starts: Numbers, length: int | Numbers) -> None:
        """The tokens from each of ``starts`` [B] on will be read soon; never waits, never fails."""
        last = np.minimum(starts + length, self._count) - 1
        self.blocks.announce(_touched(starts // self._per_block, last // self._per_block))

    def fetch(self, starts: Numbers, lengths: Numbers) -> None:
        """As ``announce``, but waits until the tokens are in the cache."""
        last = np.minimum(starts + lengths, self._count) - 1
        self.blocks.get(_touched(starts // self._per_block, last // self._per_block))

    def _blocks(self, first: Numbers, last: Numbers) -> dict[int, npt.NDArray[Any]]:
        found = self.blocks.get(_touched(first, last))
        return {number: block.view(self.dtype) for number, block in found.items()}


def _touched(first: Numbers, last: Numbers) -> list[int]:
    """All numbers from ``first`` to ``last`` [B], each once, sorted."""
    touched: set[int] = set(first.tolist()) | set(last.tolist())
    for begin, end in zip(first.tolist(), last.tolist(), strict=True):
        if end > begin + 1:
            touched.update(range(begin, end))
    return sorted(touched)
