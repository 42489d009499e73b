"""Lengths as people give them ('2B tokens', '0.1 of run'), in samples and steps of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from megarc.data import BlendStageConfig, Mixed, Shapes, WindowConfig, predicted_by, processed_by
from megarc.errors import UserError
from megarc.quantity import Quantity
from megarc.train.config import RunConfig
from megarc.train.schedule.batch_schedule import BatchSchedule, Interval, Stage, doubling
from megarc.train.schedule.schedule_shape import Descent
from megarc.window import Window

_FEWEST_STEPS = (
    4  # of a doubled batch: else the run's end, rounded up to whole steps, lies far beyond its length
)


class Lengths:
    """Turns the lengths of a run's configuration into samples and steps. Nothing else does.

    Args:
        step, samples: where the run stands: ``samples`` samples are before step ``step``. A run that began
            from another's checkpoint has other sizes of steps behind it than its own keys say.
    """

    def __init__(self, config: RunConfig, step: int = 0, samples: int = 0) -> None:
        self.length, self.until, self._step = config.length, config.until, step
        window = config.window
        mix = [Mixed(part.share, part.recent) for part in window.mix]
        self._packs = config.data.packs
        self.shapes = self._unstaged(window.build(), mix)
        self.batches = self._batches(config)
        if window.stages:
            self.shapes = self._stages(window)
        self.batches = self.batches.standing_at(step, samples)

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run; those taken already, where its length was made shorter since.

        Raises:
            UserError: where the length is a share of itself.
        """
        if self.length.unit == "run":
            raise UserError(
                f"length is '{self.length}', a share of the run, so it cannot say how long the run is; give tokens, "
                "samples or steps"
            )
        return max(self._step, self.steps(self.length))

    @property
    def end(self) -> int:
        """The step at which ``length`` and ``until`` end this job; it may lie before where the run stands."""
        return min(self.steps(amount) for amount in (self.length, self.until) if amount is not None)

    def samples(self, amount: Quantity) -> int:
        """``amount`` (of tokens or samples, from the run's start on) in samples, rounded up."""
        return _in_samples(amount, self.shapes)

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

    def at_the_end(self, amount: Quantity, total: int) -> int:
        """The samples of the steps that ``amount`` comes to at the end of a run of ``total`` samples."""
        if amount.unit not in ("tokens", "processed") or len(self.shapes.pieces) == 1:
            return self.in_samples(amount)
        whole = self.shapes.predicted(total) if amount.unit == "tokens" else self.shapes.processed(total)
        return total - self.in_samples(Quantity(max(Fraction(0), whole - amount.amount), amount.unit))

    def interval(self, amount: Quantity) -> Interval:
        """``amount`` as the time between two events: in steps where it is a whole number of steps of one size."""
        if amount.unit == "steps":
            return Interval(steps=math.ceil(amount.amount))
        if amount.unit == "run":
            samples = amount.amount * self.batches.samples_before(self.total)
        elif len(self.shapes.pieces) > 1 and amount.unit in ("tokens", "processed"):
            counted = self.shapes.predicted if amount.unit == "tokens" else self.shapes.processed
            return Interval(samples=Fraction(amount.amount), counted=counted)
        else:
            stride, rows = (round(self.shapes.average(0, of)) for of in (predicted_by, processed_by))
            samples = amount.in_windows(stride=stride, rows=rows)
        steps = samples / self.batches.stages[0].size
        if len(self.batches.stages) == 1 and steps.denominator == 1:
            return Interval(steps=steps.numerator)
        return Interval(samples=samples)

    def _stages(self, window: WindowConfig) -> Shapes:
        begun = [(0, window.stages[0].build())]
        for number, stage in enumerate(window.stages[1:], start=1):
            sample = self._begin(stage.at, self._staged(begun))
            if sample <= begun[-1][0]:
                raise UserError(
                    f"window.stages[{number}] at '{stage.at}' begins at sample {sample}, no later than the one "
                    f"before it (sample {begun[-1][0]}); a stage has one step at least"
                )
            begun.append((sample, stage.build()))
        return self._staged(begun)

    def blends(self, stages: Sequence[BlendStageConfig]) -> list[tuple[int, list[float]]]:
        """Where each stage of the blend begins, in samples, and its weights.

        Raises:
            UserError: where a stage begins no later than the one before it.
        """
        begun: list[tuple[int, list[float]]] = []
        for number, stage in enumerate(stages):
            sample = self._begin(stage.at, self.shapes)
            before = begun[-1][0] if begun else 0
            if sample <= before:
                raise UserError(
                    f"data.blend_stages[{number}] at '{stage.at}' begins at sample {sample}, no later than the one "
                    f"before it (sample {before}); weights from the start on are those of data.train"
                )
            begun.append((sample, stage.weights))
        return begun

    def _unstaged(self, window: Window, mix: list[Mixed]) -> Shapes:
        if self._packs:
            return Shapes.packed([(0, window)], mix)
        return Shapes.mixed(window, mix) if mix else Shapes.one(window)

    def _staged(self, begun: list[tuple[int, Window]]) -> Shapes:
        return Shapes.packed(begun) if self._packs else Shapes.staged(begun)

    def _begin(self, at: Quantity, earlier: Shapes) -> int:
        """The first sample of the first step at or beyond ``at``."""
        if at.unit == "run":
            at = Quantity(at.amount * self.length.amount, self.length.unit)
        if at.unit == "steps":
            return self.batches.samples_before(math.ceil(at.amount))
        return self.batches.samples_before(self.batches.steps_until(_in_samples(at, earlier)))

    def _batches(self, config: RunConfig) -> BatchSchedule:
        batch = config.batch
        if batch.rate == "seesaw":
            self.batches = BatchSchedule([Stage(0, batch.size)])  # what warm-up and decay are measured by
            return BatchSchedule(self._seesaw(config))
        if batch.measured:
            points = [(self.samples(point.at), point.batch) for point in batch.measured]
            return BatchSchedule(doubling(batch.size, points))
        later = [Stage(self.samples(stage.at), stage.size) for stage in batch.stages]
        return BatchSchedule([*([] if any(at == 0 for at, _ in later) else [Stage(0, batch.size)]), *later])

    def _seesaw(self, config: RunConfig) -> list[Stage]:
        """Twice the batch wherever the learning rate has halved (Meterez et al. 2025, 2510.14717, algorithm 1).

        With ``sqrt`` for its height, the rate over the root of the batch stays what the schedule says at each sample.
        """
        batch, schedule, stages = config.batch, config.schedule, [Stage(0, config.batch.size)]
        total = self.samples(self.length)
        begin = self.in_samples(schedule.warmup)
        if schedule.kind == "wsd":
            begin = total - self.at_the_end(schedule.decay, total)
        descent = Descent(schedule, begin, total)
        while (where := descent.reaches(0.5 ** len(stages))) is not None:
            size = 2 * stages[-1].size
            if size > (batch.largest or size) or where + _FEWEST_STEPS * size > total:
                break
            stages.append(Stage(where, size))
        return stages


def _in_samples(amount: Quantity, shapes: Shapes) -> int:
    """Samples (rounded up) from the run's start on that are ``amount``."""
    if len(shapes.pieces) == 1 and not shapes.mix:
        return amount.in_samples(stride=shapes.own.stride, rows=shapes.own.rows)
    if amount.unit == "samples":
        return math.ceil(amount.amount)
    if amount.unit not in ("tokens", "processed"):
        raise ValueError(f"'{amount}' is not an amount of samples or tokens")
    return shapes.samples_of(amount.amount, predicted_by if amount.unit == "tokens" else processed_by)
