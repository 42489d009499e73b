"""The loop, to be read aloud."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from megarc.train.engine import Engine, MicroBatch
from megarc.train.loop.observer import Ending, Moment, Observer, judgement
from megarc.train.loop.pending_steps import PendingSteps
from megarc.train.schedule import Timeline


def train(
    engine: Engine,
    feed: Iterable[list[MicroBatch]],
    timeline: Timeline,
    observers: Sequence[Observer],
    begin: Moment,
) -> Ending:
    """The steps from ``begin`` on, each on the next micro-batches of ``feed``, watched by ``observers``."""
    moment, ending = begin, None
    pending = PendingSteps(engine.groups, lambda moment: any(map(moment.every, timeline.settling)))
    judge = judgement(observers, engine.groups)
    for observer in observers:
        observer.start(engine, moment)
    for step, micro_batches in enumerate(feed, start=begin.step):
        for observer in observers:
            observer.before_step(engine, moment, micro_batches)
        result = engine.step(micro_batches, timeline.learning_rate(step), judge, timeline.growth(step))
        samples = timeline.batches.samples_before(step + 1)
        moment = Moment(step + 1, begin.total, samples, moment.skipped, before=moment.samples)
        engine.heartbeat.enter("observing")
        pending.add(moment, engine.samples, result)
        for observer in observers:
            observer.after_step(engine, moment, result)
        if not pending.due(moment):
            continue
        moment, done = pending.settle(moment, observers)
        for observer in observers:
            # Who comes later in the list does not act on what is ended: no checkpoint of steps that do not count.
            if ending := observer.settled(engine, moment, done):
                break
        if ending:
            break
    ending = ending or Ending.FINISHED
    engine.heartbeat.enter("ending")
    for observer in observers:
        observer.stop(engine, moment, ending)
    return ending
