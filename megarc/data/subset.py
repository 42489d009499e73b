"""A fixed random choice of a source's samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from megarc.data.counter_random import key_of
from megarc.data.permutation import Permutation
from megarc.data.source import (
    AnnouncedSource,
    Facts,
    Indices,
    LocatedSource,
    Sample,
    Samples,
    Source,
    read_many,
)
from megarc.errors import UserError
from megarc.window import Window


class Subset:
    """``count`` samples of ``source``: the same whatever the seed, and the first of every larger choice."""

    def __init__(self, source: Source, count: int, window: Window) -> None:
        if count > len(source):
            raise UserError(
                f"{source.facts.name}: {count} windows wanted, and it has only {len(source)}; use at most "
                f"{len(source)}, or leave windows out for all of them"
            )
        self.digest = f"{source.digest}[{count} windows]"
        self._source, self._count, self._window = source, count, window
        self._choose = Permutation(len(source), key_of("subset", source.digest))

    @property
    def facts(self) -> Facts:
        facts = self._source.facts
        return replace(facts, name=f"{facts.name} [{self._count} windows]")

    def __len__(self) -> int:
        return self._count

    def located(self, k: int) -> str:
        """As the source says it."""
        number = int(self._choose(k)[0])
        return self._source.located(number) if isinstance(self._source, LocatedSource) else f"sample {number}"

    @property
    def far(self) -> bool:
        """As the source says it."""
        return isinstance(self._source, AnnouncedSource) and self._source.far

    def announce(self, k: Indices) -> None:
        if isinstance(self._source, AnnouncedSource):
            self._source.announce(self._choose(np.asarray(k)))

    def read(self, k: int) -> Sample:
        return self._source.read(int(self._choose(k)[0]))

    def read_many(self, k: Indices) -> Samples:
        return read_many(self._source, self._choose(np.asarray(k)), self._window)
