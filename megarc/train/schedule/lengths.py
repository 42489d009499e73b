"""Lengths as people give them ('2B tokens', '0.1 of run'), in samples and steps of one run."""

from __future__ import annotations

import math

from megarc.errors import UserError
from megarc.quantity import Quantity
from megarc.train.config import RunConfig
from megarc.train.schedule.batch_schedule import BatchSchedule, Interval, Stage, doubling


class Lengths:
    """Turns the lengths of a run's configuration into samples and steps. Nothing else does.

    Args:
        step, samples: where the run stands: ``samples`` samples are before step ``step``. A run that began
            from another's checkpoint has other sizes of steps behind it than its own keys say.
    """

    def __init__(self, config: RunConfig, step: int = 0, samples: int = 0) -> None:
        self.length, self.until = config.length, config.until
        self._step, self._window = step, config.window.build()
        self.batches = self._batches(config).standing_at(step, samples)

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run; those taken already, where its length was made shorter since.

        Raises:
            UserError: where the length is a share of itself.
        """
        if self.length.unit == "run":
            raise UserError(
                f"length is '{self.length}', a share of the run, so it cannot say how long the run is"
            )
        return max(self._step, self.steps(self.length))

    @property
    def end(self) -> int:
        """The step at which ``length`` and ``until`` end this job; it may lie before where the run stands."""
        return min(self.steps(amount) for amount in (self.length, self.until) if amount is not None)

    def samples(self, amount: Quantity) -> int:
        """``amount`` (of tokens or samples) in samples, rounded up."""
        return amount.in_samples(stride=self._window.stride, rows=self._window.rows)

    def steps(self, amount: Quantity) -> int:
        """``amount`` in optimizer steps, counted from the run's start, rounded up."""
        if amount.unit == "steps":
            return math.ceil(amount.amount)
        if amount.unit != "run":
            return self.batches.steps_until(self.samples(amount))
        if len(self.batches.stages) == 1:
            return math.ceil(amount.amount * self.total)
        return self.batches.steps_until(math.ceil(amount.amount * self.batches.samples_before(self.total)))

    def in_samples(self, amount: Quantity) -> int:
        """The samples of the steps that ``amount`` comes to."""
        return self.batches.samples_before(self.steps(amount))

    def interval(self, amount: Quantity) -> Interval:
        """``amount`` as the time between two events: in steps where it is a whole number of steps of one size."""
        if amount.unit == "steps":
            return Interval(steps=math.ceil(amount.amount))
        if amount.unit == "run":
            samples = amount.amount * self.batches.samples_before(self.total)
        else:
            samples = amount.in_windows(stride=self._window.stride, rows=self._window.rows)
        steps = samples / self.batches.stages[0].size
        if len(self.batches.stages) == 1 and steps.denominator == 1:
            return Interval(steps=steps.numerator)
        return Interval(samples=samples)

    def _batches(self, config: RunConfig) -> BatchSchedule:
        batch = config.batch
        if batch.measured:
            points = [(self.samples(point.at), point.batch) for point in batch.measured]
            return BatchSchedule(doubling(batch.size, points))
        later = [Stage(self.samples(stage.at), stage.size) for stage in batch.stages]
        return BatchSchedule([*([] if any(at == 0 for at, _ in later) else [Stage(0, batch.size)]), *later])
