"""The loop, to be read aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from megarc.train.engine import Engine
from megarc.train.feed import MicroBatch
from megarc.train.observers import Moment, Observer


def train(
    engine: Engine,
    feed: Iterable[list[MicroBatch]],
    learning_rate: Callable[[int], float],
    observers: Sequence[Observer],
    *,
    first: int,
    total: int,
    batch: int,
) -> None:
    """Steps ``first .. total-1``, each on the next micro-batches of ``feed``, watched by ``observers``."""
    moment = Moment(first, total, first * batch)
    for observer in observers:
        observer.start(engine, moment)
    for step, micro_batches in enumerate(feed, start=first):
        result = engine.step(micro_batches, learning_rate(step))
        moment = Moment(step + 1, total, (step + 1) * batch)
        for observer in observers:
            observer.after_step(engine, moment, result)
    for observer in observers:
        observer.stop(engine, moment)
