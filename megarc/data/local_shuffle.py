"""A shuffle that stays near, for disks and network file systems that dislike jumps.

    whole source    | block | block | block | block | block | block | block | rest |
    a group         `mixed` blocks from anywhere, their samples shuffled among each other
    an epoch        group after group, then the rest; all turned by a random amount

While a group is read, only ``mixed * block`` samples of the source are touched,
so that they are fetched once, as ``mixed`` long runs. The price: a batch comes
from ``mixed`` places of the source, and not from as many places as it has samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megarc.data.counter_random import below, key_of, words
from megarc.data.permutation import Numbers, Permutation


@dataclass(frozen=True, slots=True)
class Locality:
    """``block`` neighbouring samples stay together; ``mixed`` such blocks are shuffled at once."""

    block: int
    mixed: int


class NearPermutation:
    """Permutations of 0..size-1, one for each ``tweak``, that reach only as far as ``locality`` says."""

    def __init__(self, size: int, key: int, locality: Locality) -> None:
        self.size = size
        self._block = min(locality.block, size)
        blocks = size // self._block
        self._whole = blocks * self._block  # samples in whole blocks
        self._group = min(locality.mixed, blocks) * self._block
        last = self._whole % self._group  # samples of the last group, where it is a smaller one
        self._turn = key_of("turn", key)
        self._tweak = key_of("group", key)
        self._order_blocks = Permutation(blocks, key_of("blocks", key))
        self._mix_group = Permutation(self._group, key_of("mix", key))
        self._mix_last = Permutation(last, key_of("mix", key)) if last else self._mix_group

    def __call__(self, numbers: npt.ArrayLike, tweak: npt.ArrayLike = 0) -> Numbers:
        """Where each of ``numbers`` [...] goes: int64 of the same shape."""
        place = np.atleast_1d(np.asarray(numbers, dtype=np.int64)).copy()
        tweaks = np.broadcast_to(np.asarray(tweak, dtype=np.int64), place.shape)
        inside = np.nonzero(place < self._whole)
        mixed, chosen = self._mixed(place[inside], tweaks[inside]), tweaks[inside]
        block, rest = np.divmod(mixed, self._block)
        place[inside] = self._order_blocks(block, chosen) * self._block + rest
        # Turned, so that neither the blocks' borders nor the last samples are the same for each tweak.
        turn = below(words(self._turn, tweaks), min(self.size, 2**32)).astype(np.int64)
        return (place + turn) % self.size

    def _mixed(self, place: Numbers, tweak: Numbers) -> Numbers:
        group, rest = np.divmod(place, self._group)
        tweaks = words(self._tweak, tweak) + group.astype(np.uint64)
        small = (group + 1) * self._group > self._whole
        for permutation, chosen in ((self._mix_group, ~small), (self._mix_last, small)):
            rest[chosen] = permutation(rest[chosen], tweaks[chosen])
        return group * self._group + rest
