"""The loop, to be read aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from megarc.train.batches import BatchSchedule
from megarc.train.engine import Engine
from megarc.train.feed import MicroBatch
from megarc.train.observers import Ballot, Ending, Moment, Observer


def train(
    engine: Engine,
    feed: Iterable[list[MicroBatch]],
    learning_rate: Callable[[int], float],
    observers: Sequence[Observer],
    begin: Moment,
    *,
    batches: BatchSchedule,
) -> Ending:
    """The steps from ``begin`` on, each on the next micro-batches of ``feed``, watched by ``observers``."""
    moment, ending = begin, Ending.FINISHED
    for observer in observers:
        observer.start(engine, moment)
    for step, micro_batches in enumerate(feed, start=begin.step):
        for observer in observers:
            observer.before_step(engine, moment, micro_batches)
        ballot = Ballot(observers, engine.groups, moment)
        result = engine.step(micro_batches, learning_rate(step), ballot)
        skipped = moment.skipped + result.skipped
        samples = batches.samples_before(step + 1)
        moment = Moment(step + 1, begin.total, samples, skipped, ballot.agreed, before=moment.samples)
        engine.pulse.enter("observing")
        asked = [observer.after_step(engine, moment, result) for observer in observers]
        if any(asked):
            ending = next(one for one in asked if one)
            break
    for observer in observers:
        observer.stop(engine, moment, ending)
    return ending
