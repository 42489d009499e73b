"""The shape of the learning rate: its share of the peak, by how much of the run's descent is behind."""

from __future__ import annotations

import math
from typing import NamedTuple

from megarc.train.config.schedule import ScheduleConfig


class Descent(NamedTuple):
    """Where the learning rate falls: from sample ``begin`` to ``end``, its shape by ``schedule``."""

    schedule: ScheduleConfig
    begin: int
    end: int

    def share(self, sample: int) -> float:
        """Of the peak, at a sample behind the warm-up."""
        final = self.schedule.final
        done = min(1.0, max(0.0, (sample - self.begin) / max(1, self.end - self.begin)))
        if self.schedule.kind == "cosine":
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 if self.schedule.kind == "constant" else final + (1 - final) * (1 - done)

    def reaches(self, share: float) -> int | None:
        """The first sample at which it is ``share`` of the peak or less; None: it never is."""
        final = self.schedule.final
        if self.schedule.kind == "constant" or share <= final:
            return None
        left = (share - final) / (1 - final)
        done = math.acos(2 * left - 1) / math.pi if self.schedule.kind == "cosine" else 1 - left
        return self.begin + math.ceil(done * (self.end - self.begin))
