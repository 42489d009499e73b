"""A prompt shorter than the window meets the model with fewer rows of R: so must some training samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megarc.data.counter_random import below, chance, key_of, table
from megarc.data.source import Indices, Segments


@dataclass(frozen=True, slots=True)
class ShortRecent:
    """Gives a ``share`` of a phase's samples fewer rows of R; which ones, and how few, k decides."""

    share: float
    seed: int
    phase: int

    def draw(self, samples: Indices, recent: int) -> Segments:
        """Rows of R of samples [B]: ``recent``, or, for a share of them, any number below it."""
        word = table(key_of("short recent", self.seed, self.phase), samples, 2)
        short = below(word[:, 1], recent)
        return np.where(chance(word[:, 0], self.share), short, np.uint64(recent)).astype(np.int32)
