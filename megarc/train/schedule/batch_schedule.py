"""Which samples each step takes: the batch as a function of where the run stands in the data."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple


class Stage(NamedTuple):
    """From sample ``sample`` on, steps take ``size`` samples."""

    sample: int
    size: int


class Interval(NamedTuple):
    """Between two events of a run: so many steps, or samples where it is not a whole number of steps.

    Multiples are those of the amount itself, so nothing adds up that was rounded before.

    Attributes:
        counted: what ``samples`` are in truth, of all samples before a given one: the tokens of windows that
            change in the course of the run; None: samples.
    """

    steps: int | None = None
    samples: int | Fraction | None = None
    counted: Callable[[int], int] | None = None

    def due(self, step: int, before: int, samples: int) -> bool:
        """Whether a multiple falls into step number ``step``, which takes samples ``before .. samples-1``."""
        return self.between((step - 1, before), (step, samples))

    def between(self, before: tuple[int, int], now: tuple[int, int]) -> bool:
        """Whether a multiple lies beyond ``before`` and not beyond ``now``, each (steps, samples) of the run."""
        if self.samples is not None:
            width = self.samples or 1
            counted = self.counted or int
            return counted(now[1]) // width > counted(before[1]) // width
        width = max(1, self.steps or 1)
        return now[0] // width > before[0] // width


class _Piece(NamedTuple):
    """From step ``step`` on, which begins with sample ``sample``, steps take ``size`` samples."""

    step: int
    sample: int
    size: int


class BatchSchedule:
    """Sizes of steps, and the samples before each. Samples follow each other whatever their steps' sizes.

    The size of a step depends on the samples before it alone, so that a run goes on exactly wherever it
    was stopped, and a step is never cut: a stage begins with the first step at or beyond its sample.

    Args:
        stages: by sample; the first begins at 0.
        step, samples: where the run stands: ``samples`` samples are before step ``step``. A run that began
            from another's checkpoint cannot know this from its own sizes.
    """

    def __init__(self, stages: Sequence[Stage], step: int = 0, samples: int = 0) -> None:
        if not stages or stages[0].sample != 0 or any(size < 1 for _, size in stages):
            raise ValueError(f"stages {stages}: the first begins at sample 0, and sizes are above 0")
        self.stages = sorted(stages)
        self._pieces = [_Piece(step, samples, self._size_at(samples))]
        for stage in self.stages:
            last = self._pieces[-1]
            if stage.sample > last.sample:
                steps = -(-(stage.sample - last.sample) // last.size)
                sample = last.sample + steps * last.size
                self._pieces.append(_Piece(last.step + steps, sample, self._size_at(sample)))

    def standing_at(self, step: int, samples: int) -> BatchSchedule:
        """The same stages for a run that stands there."""
        return BatchSchedule(self.stages, step, samples)

    def size(self, step: int) -> int:
        """Samples of step ``step``, over all ranks."""
        return self._piece(step).size

    def samples_before(self, step: int) -> int:
        """The number of step ``step``'s first sample."""
        piece = self._piece(step)
        return piece.sample + (step - piece.step) * piece.size

    def step_of(self, sample: int) -> int:
        """The step that takes sample ``sample``."""
        return self.steps_until(sample + 1) - 1

    def steps_until(self, samples: int) -> int:
        """The first step with ``samples`` samples or more before it: a run of so many has so many steps."""
        pieces = self._pieces
        piece = pieces[max(0, bisect.bisect_right([piece.sample for piece in pieces], samples) - 1)]
        return piece.step + max(0, -(-(samples - piece.sample) // piece.size))

    def _piece(self, step: int) -> _Piece:
        place = bisect.bisect_right([piece.step for piece in self._pieces], step) - 1
        if place < 0:
            raise ValueError(f"step {step} lies before step {self._pieces[0].step}, where the run stands")
        return self._pieces[place]

    def _size_at(self, sample: int) -> int:
        return self.stages[bisect.bisect_right([stage.sample for stage in self.stages], sample) - 1].size

    def __str__(self) -> str:
        first, *later = self.stages
        return f"{first.size} samples" + "".join(
            f", {stage.size} from sample {stage.sample} on" for stage in later
        )


def doubling(size: int, critical: Sequence[tuple[float, float]]) -> list[Stage]:
    """Doubles ``size`` wherever the critical batch has grown to twice it (Merrill et al. 2025, 2505.23971).

    Args:
        critical: ``(samples before the measurement, critical batch)``; a power law between neighbours, and
            nothing is known before the first and beyond the last.
    """
    stages = [Stage(0, size)]
    known = sorted(critical)
    for place, (at, batch) in enumerate(known):
        before = known[place - 1] if place else None
        while batch >= 2 * stages[-1].size:
            wanted = 2 * stages[-1].size
            where = at
            if before is not None and 0 < before[0] < at and before[1] < wanted:
                share = _log_share(before[1], batch, wanted)
                where = before[0] * (at / before[0]) ** share
            stages.append(Stage(round(where), wanted))
    return stages


def _log_share(low: float, high: float, value: float) -> float:
    """How far ``value`` lies between ``low`` and ``high``, in logarithms."""

    return math.log(value / low) / math.log(high / low)
