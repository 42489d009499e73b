"""Losses and gradients that are no numbers, or far too high: their steps are left out, on all ranks alike."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megarc.data import Gaps
from megarc.errors import UserError, reported_once
from megarc.parallel import Groups, gather_objects
from megarc.train.config import HealthConfig
from megarc.train.engine import Engine, StepResult
from megarc.train.loop import Done, Ending, Moment, Observer
from megarc.train.schedule import BatchSchedule

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


class Statistics:
    """``Running`` on the device, so that each step is judged by all before it though the host has not heard of them.

    Args:
        running: what it begins with.
    """

    def __init__(self, running: Running, device: torch.device) -> None:
        self.backs = running.backs
        begin = [running.count, running.mean, running.variance]
        self._values = torch.tensor(begin, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, bad: Tensor) -> None:
        """One more step's loss, unless that was bad. Until the memory is full the mean is a plain one."""
        count, mean, variance = self._values.unbind()
        share = (1 / (count + 1)).clamp(min=1 - _MEMORY)
        away = loss.double() - mean
        more = torch.stack([count + 1, mean + share * away, (1 - share) * (variance + share * away**2)])
        self._values = torch.where(bad, self._values, more)

    def limit(self, sigmas: float) -> Tensor:
        """A loss above this is a spike."""
        count, mean, variance = self._values.unbind()
        return torch.where(count < _STEPS_BEFORE_JUDGING, math.inf, mean + sigmas * variance.sqrt())

    def read(self) -> Running:
        """Waits for the device."""
        count, mean, variance = self._values.tolist()
        return Running(int(count), mean, variance, self.backs)


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


class Diverged(UserError):
    """Losses or gradients of a run were no numbers, or spikes, and going back did not help."""

    @staticmethod
    def caused(error: BaseException) -> bool:
        """Whether ``error`` is this one, or what another rank makes of it (``reported_once``)."""
        return isinstance(error, Diverged) or isinstance(error.__context__, Diverged)


class Numbers(Observer):
    """Judges a bad step to be left out; after ``health.bad_steps`` in a row, ends this attempt or the run.

    The device judges, so that nothing bad reaches the weights; the host hears of it when steps are settled. Where it
    then goes back, steps after the bad ones are done again.
    """

    def __init__(
        self,
        config: HealthConfig,
        batches: BatchSchedule,
        gaps: Gaps,
        running: Running,
        device: torch.device,
    ) -> None:
        self.config, self.batches, self.gaps, self.running = config, batches, gaps, running
        self.bad: BadSteps | None = None
        self._statistics = Statistics(running, device)

    def judge(self, loss: Tensor, gradient_norm: Tensor) -> Tensor:
        good = loss.isfinite() & gradient_norm.isfinite()
        if self.config.spike is not None:
            good &= loss <= self._statistics.limit(self.config.spike)
        return ~good

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        self._statistics.add(result.loss, result.bad)

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> Ending | None:
        self.running = self._statistics.read()
        for done in steps:
            if done.empty:  # neither good nor bad
                if engine.groups.first:
                    log.warning(
                        "step %d has no row with a weight above 0: nothing to learn, no update", done.step
                    )
                continue
            if not done.left_out:
                self.bad = None
                continue
            first = self.bad.first if self.bad else done.step
            self.bad = BadSteps(first, done.step, self._ask_all(done, engine.groups), self.running.backs)
            if engine.groups.first:
                log.warning("step %d is skipped, %d in a row: %s", done.step, self.bad.count, self.bad.why)
            if self.bad.count == self.config.bad_steps:
                break
        else:
            return None
        if self.config.then == "back" and self.running.backs < self.config.backs:
            return Ending.BACK
        with reported_once(engine.groups.first):
            raise Diverged(self._report())

    def _why(self, done: Done) -> str | None:
        """What is bad about a step, in words; nothing where another rank thought so."""
        if not math.isfinite(done.loss):
            return f"the loss is {done.loss}"
        if not math.isfinite(done.gradient_norm):
            return f"the gradient's norm is {done.gradient_norm}"
        if self.config.spike is not None:
            return (
                f"the loss {done.loss:.4g} is a spike: {self.running.mean:.4g} on the average until now, "
                f"standard deviation {math.sqrt(self.running.variance):.2g}"
            )
        return None

    def _ask_all(self, done: Done, groups: Groups) -> str:
        """What is bad, and with which samples; where the losses of some ranks only are no numbers, theirs."""
        gathered = gather_objects((self._why(done), done.own_nll, done.samples), groups.world)
        why = next((why for why, *_ in gathered if why), "a rank judged so")
        bad = [(rank, samples) for rank, (_, nll, samples) in enumerate(gathered) if not math.isfinite(nll)]
        listed = [f"rank {rank}: {spans(samples)}" for rank, samples in bad[:8]]
        where = f" (not finite on {'; '.join(listed)})" if 0 < len(bad) < len(gathered) else ""
        return f"{why}; samples {spans({number for *_, samples in gathered for number in samples})}{where}"

    def _report(self) -> str:
        assert self.bad is not None
        runs = self.gaps.runs(*self.bad.samples(self.batches))
        samples = ", ".join(f"{begin}..{begin + length - 1}" for begin, length in runs)
        went = f" The run has already gone back {self.running.backs} times." if self.running.backs else ""
        return (
            f"steps {self.bad.first} to {self.bad.last} (samples {samples}) were bad: "
            f"{self.bad.why}.{went} Nothing of them is in the weights; look at these samples, or go on in a "
            "new folder with a lower optimizer.lr or optimizer.clip. With health.then=back the run continues "
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
