"""The loop, to be read aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from megarc.train.engine.engine import Engine
from megarc.train.loop.batch_schedule import BatchSchedule
from megarc.train.loop.feed import MicroBatch
from megarc.train.loop.observer import Ending, Moment, Observer, judgement
from megarc.train.loop.pending_steps import PendingSteps


def train(
    engine: Engine,
    feed: Iterable[list[MicroBatch]],
    learning_rate: Callable[[int], float],
    observers: Sequence[Observer],
    begin: Moment,
    *,
    batches: BatchSchedule,
    due: Callable[[Moment], bool],
) -> Ending:
    """The steps from ``begin`` on, each on the next micro-batches of ``feed``, watched by ``observers``.

    Args:
        due: whether steps are to be settled after this one; after the last they always are.
    """
    moment, ending = begin, None
    ledger, judge = PendingSteps(engine.groups, due), judgement(observers, engine.groups)
    for observer in observers:
        observer.start(engine, moment)
    for step, micro_batches in enumerate(feed, start=begin.step):
        for observer in observers:
            observer.before_step(engine, moment, micro_batches)
        result = engine.step(micro_batches, learning_rate(step), judge)
        samples = batches.samples_before(step + 1)
        moment = Moment(step + 1, begin.total, samples, moment.skipped, before=moment.samples)
        engine.heartbeat.enter("observing")
        ledger.add(moment, engine.samples, result)
        for observer in observers:
            observer.after_step(engine, moment, result)
        if not ledger.due(moment):
            continue
        moment, done = ledger.settle(moment, observers)
        for observer in observers:
            # Who comes later in the list does not act on what is ended: no checkpoint of steps that do not count.
            if ending := observer.settled(engine, moment, done):
                break
        if ending:
            break
    ending = ending or Ending.FINISHED
    for observer in observers:
        observer.stop(engine, moment, ending)
    return ending
