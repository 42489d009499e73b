"""Python's garbage collection while a run goes on: at the same steps on every rank, never in between."""

from __future__ import annotations

import gc

from megarc.train.engine import Engine, StepResult
from megarc.train.loop.observer import Ending, Moment, Observer

EVERY = 100  # steps


class GarbageCollection(Observer):
    """Collects every 100 steps what cycles keep alive.

    Left to itself Python looks through all objects whenever enough were made: at
    another moment on every rank, and all ranks wait for the one that looks. What is
    there when training begins is set aside (``gc.freeze``), so that a collection looks
    at little and takes milliseconds.
    """

    def start(self, engine: Engine, moment: Moment) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        if moment.step % EVERY == 0:
            gc.collect()

    def stop(self, engine: Engine, moment: Moment, ending: Ending) -> None:
        gc.enable()
        gc.unfreeze()
