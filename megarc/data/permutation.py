"""A random permutation of 0..size-1 that is computed, place by place, instead of stored.

A Feistel network: a number is a cell (x, y) of a grid of ``across * down`` cells,
just large enough for ``size``; each round shifts one coordinate by a hash of the
other, which can be undone, so six rounds are a permutation of the grid. A cell
that falls outside 0..size-1 goes round again until it falls inside ("cycle
walking"): the grid has fewer than sqrt(size) + 1 cells too many, so that is rare.

With a few cells a side there are too few shifts: of 5 numbers, pairs of neighbours were seen up to 1.5 times as
often as others. Up to 31 numbers are permuted by the ranks of as many random words instead.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.data.counter_random import GOLDEN, Words, below, mix, words

Numbers: TypeAlias = npt.NDArray[np.int64]

_ROUNDS = words(0, range(6))
_LARGEST = 2**62
RANKED = 31  # up to here by ranks; pairs of places are uniform from about 20 on either way
_PLACE = np.uint64(0xFF)


class Permutation:
    """Permutations of 0..size-1, one for each ``tweak``; 1 <= size <= 2**62."""

    def __init__(self, size: int, key: int) -> None:
        if not 1 <= size <= _LARGEST:
            raise ValueError(f"a permutation of {size} numbers; it must be of 1 to 2**62")
        self.size = size
        self.across = math.isqrt(size - 1) + 1
        self.down = -(-size // self.across)
        self._key = key

    def __call__(self, numbers: npt.ArrayLike, tweak: npt.ArrayLike = 0) -> Numbers:
        """Where each of ``numbers`` goes: int64 of the same shape [...].

        Args:
            tweak: which permutation: one for all, or one for each number [...]; epochs, for instance.
        """
        start = np.atleast_1d(np.asarray(numbers, dtype=np.int64))
        if start.size and not (start.min() >= 0 and start.max() < self.size):
            raise ValueError(f"a number outside 0..{self.size - 1} would walk for ever")
        secret = np.broadcast_to(words(self._key, tweak), start.shape)
        if self.size <= RANKED:
            return self._ranked(start, secret)
        cell = self._shuffle(start.astype(np.uint64), secret)
        # A walk leaves 0..size-1 for at most as many steps as there are cells outside.
        for _ in range(self.across * self.down - self.size):
            outside = np.nonzero(cell >= np.uint64(self.size))
            if not outside[0].size:
                break
            cell[outside] = self._shuffle(cell[outside], secret[outside])
        return cell.astype(np.int64)

    def _ranked(self, numbers: Numbers, secret: Words) -> Numbers:
        """The rank of word ``numbers`` [...] among ``size`` words; their places make them all different."""
        places: Words = np.arange(self.size, dtype=np.uint64)
        drawn = (mix(secret[..., None] + (places + np.uint64(1)) * GOLDEN) & ~_PLACE) | places  # [..., size]
        own = np.take_along_axis(drawn, numbers[..., None], axis=-1)
        return (drawn < own).sum(axis=-1, dtype=np.int64)

    def _shuffle(self, cell: Words, secret: Words) -> Words:
        """All rounds: grid cells [...] to grid cells [...]."""
        down = np.uint64(self.down)
        x, y = np.divmod(cell, down)
        for number, constant in enumerate(_ROUNDS):
            if number % 2:
                y = _shifted(y, mix(x + secret + constant), self.down)
            else:
                x = _shifted(x, mix(y + secret + constant), self.across)
        return x * down + y


def _shifted(coordinate: Words, word: Words, side: int) -> Words:
    moved = coordinate + below(word, side)
    return np.where(moved >= np.uint64(side), moved - np.uint64(side), moved)
