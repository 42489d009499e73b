"""How long steps take against what the planner predicted (`launch/plan.py --write`), so that a drift shows."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from statistics import median

from megarc.train.engine import Engine
from megarc.train.loop import Done, Moment, Observer

log = logging.getLogger("megarc")

STEPS = 20  # that are measured before it is said


class Prediction(Observer):
    """Says once, after ``STEPS`` steps, what was predicted and what was measured, and then with each line of metrics.

    A step's time is that between two moments at which steps were settled, by their number; the median of all since
    the first, which may compile and allocate.

    Args:
        seconds: of a step, predicted; None: nothing is measured.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._times: list[float] = []
        self._since: tuple[int, float] | None = None
        self._said = False

    @property
    def measured(self) -> float | None:
        """Seconds of a step; None before ``STEPS`` steps."""
        return median(self._times) if len(self._times) >= STEPS else None

    def values(self) -> dict[str, float | None]:
        """For the line of metrics: nothing where nothing was predicted."""
        if self.seconds is None or (seen := self.measured) is None:
            return {}
        return {"plan/step_ratio": seen / self.seconds}

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> None:
        if self.seconds is None:
            return
        now = time.perf_counter()
        if self._since is not None:
            step, before = self._since
            self._times += [(now - before) / (moment.step - step)] * (moment.step - step)
        self._since = (moment.step, now)
        seen = self.measured
        if seen is not None and not self._said:
            self._said = True
            if engine.groups.first:
                log.info(
                    "a step takes %.4g s, %.4g s were predicted: %.2f times",
                    seen,
                    self.seconds,
                    seen / self.seconds,
                )
