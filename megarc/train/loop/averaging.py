"""Takes each step's weights into their average."""

from __future__ import annotations

from megarc.train.config import AverageConfig
from megarc.train.engine import Engine, StepResult
from megarc.train.loop.observer import Moment, Observer


class Averaging(Observer):
    """Does nothing where no average is kept."""

    def __init__(self, keys: AverageConfig) -> None:
        self.keys = keys

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        if engine.average is not None:
            engine.average.update(self.keys.share(moment.step, moment.total), result.bad)
