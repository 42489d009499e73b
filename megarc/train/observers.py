"""What watches a run: held-out loss, metrics, checkpoints. All have the same three hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from megarc.train.engine import Engine, StepResult


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the run is after a step: ``step`` of ``total`` are done."""

    step: int
    total: int
    samples: int

    @property
    def last(self) -> bool:
        return self.step == self.total

    def every(self, steps: int) -> bool:
        """Whether something due every ``steps`` steps, and at the end, is due now."""
        return self.last or self.step % max(1, steps) == 0


class Observer(Protocol):
    """Called by all ranks alike; in the order of the list in ``run.py``."""

    def start(self, engine: Engine, moment: Moment) -> None:
        """Before the first step."""

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        """After each step."""

    def stop(self, engine: Engine, moment: Moment) -> None:
        """After the last step; not called when the run fails."""
