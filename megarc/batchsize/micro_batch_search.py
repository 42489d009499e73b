"""The computational batch: the micro-batch that fits and is fastest, searched by trying."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trial:
    """One micro-batch on the real model and device.

    Attributes:
        fits: whether it stayed within the memory; where not, the numbers are None.
        memory: the most bytes that a rank held.
        micro_batches: of the step that was timed.
        seconds: that it took, update and all.
    """

    size: int
    recompute: str
    fits: bool
    memory: int | None = None
    micro_batches: int = 1
    seconds: float | None = None

    @property
    def samples_per_second(self) -> float:
        """Of one rank."""
        assert self.seconds is not None
        return self.micro_batches * self.size / self.seconds


def search(attempt: Callable[[int], Trial], largest: int) -> list[Trial]:
    """Doubles the size until it does not fit, then bisects to an eighth; all trials, by size.

    Args:
        attempt: tries one size; it recovers by itself where memory runs out.
    """
    tried = [attempt(1)]
    while tried[-1].fits and tried[-1].size < largest:
        tried.append(attempt(min(2 * tried[-1].size, largest)))
    if not tried[-1].fits and len(tried) > 1:
        fits, fails = tried[-2].size, tried[-1].size
        while fails - fits > max(1, fits // 8):
            middle = attempt((fits + fails) // 2)
            tried.append(middle)
            fits, fails = (middle.size, fails) if middle.fits else (fits, middle.size)
    return sorted(tried, key=lambda trial: trial.size)


def knee(trials: Sequence[Trial], slack: float) -> Trial | None:
    """The smallest size within ``slack`` of the fastest that fits.

    Beyond it a larger micro-batch costs memory and brings nothing. None: nothing fits.
    """
    fitting = sorted((trial for trial in trials if trial.fits), key=lambda trial: trial.size)
    if not fitting:
        return None
    best = max(trial.samples_per_second for trial in fitting)
    return next(trial for trial in fitting if trial.samples_per_second >= (1 - slack) * best)


def usable(trials: Sequence[Trial], share: int) -> list[Trial]:
    """Those whose size divides a rank's share of the batch: what a run can take."""
    return [trial for trial in trials if share % trial.size == 0]
