"""The computational batch: the micro-batch that fits and is fastest; memory is predicted, and trials confirm it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Trial:
    """One micro-batch on the real model and device.

    Attributes:
        fits: whether it stayed within the memory; where not, the numbers are None.
        memory: the most bytes that a rank held.
        micro_batches: of the step that was timed.
        seconds: that it took, update and all.
        predicted: the most bytes that a rank would hold, as known before the trial; None: nothing predicts them.
    """

    size: int
    recompute: str
    fits: bool
    memory: int | None = None
    micro_batches: int = 1
    seconds: float | None = None
    predicted: float | None = None

    @property
    def samples_per_second(self) -> float:
        """Of one rank."""
        assert self.seconds is not None
        return self.micro_batches * self.size / self.seconds


@dataclass
class Forecast:
    """Bytes that a rank takes by its micro-batch; what trials measured corrects it.

    Attributes:
        bytes_of: a size as predicted, growing with the size.
        limit: that a rank may use.
    """

    bytes_of: Callable[[int], float]
    limit: float
    correction: float = 1.0

    def bytes(self, size: int) -> float:
        return self.correction * self.bytes_of(size)

    def learn(self, trial: Trial) -> None:
        """The next sizes are predicted as near as the last was."""
        if trial.memory:
            self.correction = trial.memory / self.bytes_of(trial.size)

    def largest(self, most: int) -> int:
        """The largest size up to ``most`` that is predicted to fit; 1 where none is."""
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.bytes(middle) <= self.limit else (low, middle - 1)
        return low


def search(attempt: Callable[[int], Trial], largest: int, forecast: Forecast | None = None) -> list[Trial]:
    """Doubles the size until it does not fit, then bisects to an eighth; all trials, by size.

    With a ``forecast`` it doubles up to the largest size that is predicted to fit, and tries that: sizes beyond it
    are tried only where memory turns out to be less used than predicted.

    Args:
        attempt: tries one size; it recovers by itself where memory runs out.
    """
    tried: list[Trial] = []

    def attempted(size: int) -> Trial:
        known = None if forecast is None else forecast.bytes(size)
        tried.append(replace(attempt(size), predicted=known))
        if forecast is not None:
            forecast.learn(tried[-1])
        return tried[-1]

    last = attempted(1)
    while last.fits and last.size < largest:
        end = largest if forecast is None else forecast.largest(largest)
        if forecast is not None and end - last.size <= last.size // 8:
            break  # as near to the edge as bisecting would come
        last = attempted(min(2 * last.size, end))
    if not last.fits and len(tried) > 1:
        fits, fails = tried[-2].size, last.size
        while fails - fits > max(1, fits // 8):
            middle = attempted((fits + fails) // 2)
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
