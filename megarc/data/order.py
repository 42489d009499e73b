"""The order of a run: which source, and which of its samples, sample k is.

A pure function of the seed, the phase, k, the blend and each source's digest
and length: the same on one rank and on a thousand, whatever the batch, the
length of the run or how often it was stopped. Nothing is stored.

The window enters by what it makes of a source, its length. So two windows of
the same rows and stride read the same samples in the same order: arms of an
experiment are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from megarc.data.blend import Blend, StagedBlend
from megarc.data.counter_random import digest_of, key_of
from megarc.data.epochs import Epochs
from megarc.data.local_shuffle import Locality
from megarc.data.permutation import Numbers
from megarc.data.source import Turns

ENDLESS = 2**62

CACHED = 4096
"""Samples that are worked out at once: numpy takes as long for 1,000 as for one."""


class Places(NamedTuple):
    """Where samples come from: ``source`` [B] by number, ``number`` [B] within that source."""

    source: Numbers
    number: Numbers


class Order(Protocol):
    """Says where samples come from."""

    @property
    def digest(self) -> str:
        """All that makes the order, but for the phase: where it differs, sample k is another one."""

    def __len__(self) -> int: ...

    def in_phase(self, phase: int) -> Order:
        """The order of another phase, from sample 0 on under a key of its own."""

    def places(self, first: int, count: int) -> Places:
        """Of samples first .. first + count - 1."""

    def counts(self, places: int) -> Numbers:
        """Of the first ``places`` samples, those of each source: [sources]."""


class Shuffled:
    """For training: blended, shuffled, ``ENDLESS``.

    Args:
        sizes: samples of each source [sources]; 1 of a source with an order of its own.
        digests: what each source holds [sources]; no two alike.
        quotas: samples of each source in a block of the blend [sources].
        stages: other quotas from samples of the order on: (sample, quotas), in order.
        own: orders that sources have themselves, by the source's number, made for a key.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        digests: Sequence[str],
        quotas: Sequence[int],
        *,
        seed: int,
        phase: int = 0,
        locality: Locality | None = None,
        stages: Sequence[tuple[int, Sequence[int]]] = (),
        own: Mapping[int, Callable[[int], Turns]] | None = None,
    ) -> None:
        self._made_of = (tuple(sizes), tuple(digests), tuple(quotas), seed, locality)
        self._own_of, self._stages = own or {}, tuple((begin, tuple(some)) for begin, some in stages)
        self._blend = StagedBlend([(0, quotas), *stages]) if stages else Blend(quotas)
        keys = [key_of("order", seed, phase, digest) for digest in digests]
        self._epochs = [Epochs(size, key, locality) for size, key in zip(sizes, keys, strict=True)]
        # Asked for the samples that are read alone: those of the rest of a cached block may not be there yet.
        self._own = {which: turns(keys[which]) for which, turns in self._own_of.items()}
        self._cached = (-1, Places(np.empty(0, np.int64), np.empty(0, np.int64)))

    def __len__(self) -> int:
        return ENDLESS

    @cached_property
    def digest(self) -> str:
        """Of sizes, digests, quotas, their stages, seed and locality."""
        sizes, digests, quotas, seed, locality = self._made_of
        near = (locality.block, locality.mixed) if locality else ()
        later = [number for begin, some in self._stages for number in (begin, *some)]
        return digest_of("order", *sizes, *digests, *quotas, seed, *near, *later)

    def counts(self, places: int) -> Numbers:
        """Of the first ``places`` samples, those of each source: [sources]."""
        return self._blend.counts(places)

    def in_phase(self, phase: int) -> Shuffled:
        """The same sources and quotas, under the key of another phase."""
        sizes, digests, quotas, seed, locality = self._made_of
        return Shuffled(
            sizes,
            digests,
            quotas,
            seed=seed,
            phase=phase,
            locality=locality,
            stages=self._stages,
            own=self._own_of,
        )

    def places(self, first: int, count: int) -> Places:
        """Of samples first .. first + count - 1."""
        blocks = range(first // CACHED, (first + count - 1) // CACHED + 1)
        parts = [self._block(number) for number in blocks]
        start = first - blocks.start * CACHED
        source, number = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        source, number = source[start : start + count], number[start : start + count]
        for which, turns in self._own.items():
            mine = source == which
            if mine.any():
                number[mine] = turns(number[mine])
        return Places(source, number)

    def _block(self, block: int) -> Places:
        # One assignment of one tuple, so that two threads can share the cache without a lock.
        known, places = self._cached
        if known != block:
            places = self._work_out(np.arange(block * CACHED, (block + 1) * CACHED))
            self._cached = (block, places)
        return places

    def _work_out(self, samples: Numbers) -> Places:
        source, turn = self._blend(samples)
        number = np.empty_like(turn)
        for which in set(np.unique(source).tolist()) - set(self._own):
            mine = np.nonzero(source == which)[0]
            number[mine] = self._epochs[which](turn[mine])
        for which in self._own:
            number[source == which] = turn[source == which]
        return Places(source, number)


class Sequential:
    """For validation: every sample of every source once, source after source."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._ends = np.cumsum(np.asarray(sizes, dtype=np.int64))
        self._begins = self._ends - np.asarray(sizes, dtype=np.int64)

    @property
    def digest(self) -> str:
        """Of the sizes."""
        return digest_of("sequence", *self._ends.tolist())

    def in_phase(self, phase: int) -> Sequential:
        """Itself: what is read once has no phases."""
        return self

    def __len__(self) -> int:
        return int(self._ends[-1])

    def places(self, first: int, count: int) -> Places:
        """Of samples first .. first + count - 1."""
        samples: Numbers = np.arange(first, first + count, dtype=np.int64)
        source: Numbers = np.searchsorted(self._ends, samples, side="right").astype(np.int64)
        return Places(source, samples - self._begins[source])

    def counts(self, places: int) -> Numbers:
        """Of the first ``places`` samples, those of each source: [sources]."""
        return np.clip(places - self._begins, 0, self._ends - self._begins)
