"""Losses and gradients that are no numbers, or far too high: their steps are left out, on all ranks alike."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

from megarc.data import Gaps
from megarc.errors import UserError, told_once
from megarc.parallel import gather_objects
from megarc.train.batches import BatchSchedule
from megarc.train.engine import Engine, StepResult
from megarc.train.observers import Ending, Moment, Observer, Vote
from megarc.train.safety import HealthConfig

log = logging.getLogger("megarc")

_MEMORY = 0.98  # of the running mean: about 50 steps
_STEPS_BEFORE_JUDGING = 20


@dataclass(frozen=True, slots=True)
class Running:
    """Exponential mean and variance of the losses of good steps, and how often the run went back.

    Part of a checkpoint, so that a run that was stopped judges as one that was not.
    """

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    backs: int = 0

    def with_loss(self, loss: float) -> Running:
        """One more loss. Until the memory is full it is a plain mean."""
        share = max(1 - _MEMORY, 1 / (self.count + 1))
        away = loss - self.mean
        mean = self.mean + share * away
        return Running(self.count + 1, mean, (1 - share) * (self.variance + share * away**2), self.backs)

    def limit(self, sigmas: float) -> float:
        """A loss above this is a spike."""
        if self.count < _STEPS_BEFORE_JUDGING:
            return math.inf
        return self.mean + sigmas * math.sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class BadSteps:
    """Steps without an update in a row: the number of the first, counted from 1, and of the last."""

    first: int
    last: int
    why: str
    backs: int  # how often the run went back before

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    def samples(self, batches: BatchSchedule) -> tuple[int, int]:
        """The first sample that they took, and how many."""
        first = batches.samples_before(self.first - 1)
        return first, batches.samples_before(self.last) - first


class Numbers(Observer):
    """Votes to leave a bad step out; after ``health.bad_steps`` in a row, ends the stretch or the run."""

    def __init__(self, config: HealthConfig, batches: BatchSchedule, gaps: Gaps, running: Running) -> None:
        self.config, self.batches, self.gaps, self.running = config, batches, gaps, running
        self.bad: BadSteps | None = None
        self._why: str | None = None
        self._loss = 0.0  # of the last step, read once

    def before_update(self, moment: Moment, loss: float, gradient_norm: float) -> Vote:
        self._loss, self._why = loss, self._judge(loss, gradient_norm)
        return Vote.SKIP if self._why else Vote.APPLY

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> Ending | None:
        if not result.skipped:
            self.bad = None
            self.running = self.running.with_loss(self._loss)
            return None
        first = self.bad.first if self.bad else moment.step
        self.bad = BadSteps(first, moment.step, self._ask_all(engine, result), self.running.backs)
        if engine.groups.first:
            log.warning("step %d is left out, %d in a row: %s", moment.step, self.bad.count, self.bad.why)
        if self.bad.count < self.config.bad_steps:
            return None
        if self.config.then == "back" and self.running.backs < self.config.backs:
            return Ending.BACK
        with told_once(engine.groups.first):
            raise UserError(self._report(moment))

    def _judge(self, loss: float, gradient_norm: float) -> str | None:
        """What is bad about a step, in words."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(gradient_norm):
            return f"the gradient's norm is {gradient_norm}"
        if self.config.spike is not None and loss > self.running.limit(self.config.spike):
            return (
                f"the loss {loss:.4g} is a spike: {self.running.mean:.4g} on the average until now, "
                f"standard deviation {math.sqrt(self.running.variance):.2g}"
            )
        return None

    def _ask_all(self, engine: Engine, result: StepResult) -> str:
        """What is bad, and with which samples; where the losses of some ranks only are no numbers, theirs."""
        own = (self._why, float(result.own_nll), engine.samples)
        told = gather_objects(own, engine.groups.world)
        why = next(why for why, *_ in told if why)
        bad = [(rank, samples) for rank, (_, nll, samples) in enumerate(told) if not math.isfinite(nll)]
        listed = [f"rank {rank}: {spans(samples)}" for rank, samples in bad[:8]]
        where = f" (not finite on {'; '.join(listed)})" if 0 < len(bad) < len(told) else ""
        return f"{why}; samples {spans({number for *_, samples in told for number in samples})}{where}"

    def _report(self, moment: Moment) -> str:
        assert self.bad is not None
        runs = self.gaps.runs(*self.bad.samples(self.batches))
        samples = ", ".join(f"{begin}..{begin + length - 1}" for begin, length in runs)
        went = f" The run went back {self.running.backs} times already." if self.running.backs else ""
        return (
            f"steps {self.bad.first} to {self.bad.last} (samples {samples}) were bad: "
            f"{self.bad.why}.{went} Nothing of them is in the weights; look at these samples, or go on in a "
            "new folder with a lower optimizer.lr or optimizer.clip. With health.then=back the run goes on "
            "without them by itself"
        )


def spans(numbers: Iterable[int]) -> str:
    """1, 2, 3, 7 as ``1..3, 7..7``."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{first}..{last}" for first, last in found)
