"""What watches a run: metrics, held-out loss, checkpoints, health. All have the same few hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, Flag, auto

import torch
from torch import Tensor

from megarc.parallel import Groups, all_reduce_max
from megarc.train.engine import Engine, MicroBatch, StepResult
from megarc.train.schedule import Interval


class Vote(Flag):
    """What an observer wants, seen from its rank; what one rank wants, all ranks do."""

    NOTHING = 0
    END = auto()  # save now, and end
    LOOK = auto()  # a save of mine failed: let us look together


class Ending(Enum):
    """How training ended."""

    FINISHED = "finished"
    SAVED = "saved"  # before its end; the same command goes on
    BACK = "back"  # go on from an earlier checkpoint


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the run is: ``step`` of ``total`` are done, the last took samples ``before`` to ``samples - 1``.

    ``skipped`` steps had no update, and ``agreed`` is what all ranks voted, both when steps were last settled.
    """

    step: int
    total: int
    samples: int
    skipped: int = 0
    agreed: Vote = Vote.NOTHING
    before: int = 0

    @property
    def last(self) -> bool:
        return self.step == self.total

    def every(self, interval: Interval | int) -> bool:
        """Whether something due at each multiple of ``interval`` (a number: steps), and at the end, is due now."""
        if isinstance(interval, int):
            interval = Interval(steps=interval)
        return self.last or interval.due(self.step, self.before, self.samples)


@dataclass(frozen=True, slots=True)
class Done:
    """A step, counted from 1, as the host knows it once it is settled: its ``StepResult`` read from the device.

    ``samples`` and ``own_nll`` are this rank's.
    """

    step: int
    samples: list[int]
    learning_rate: float
    loss: float
    gradient_norm: float
    own_nll: float
    left_out: bool
    empty: bool = False  # no row bore loss; then it was left out too


class Observer:
    """Called by all ranks alike, in the order of the list in ``trainer.py``. What is not needed is left out.

    Steps go to the device one after the other; the host follows, and now and then settles: it reads what became of
    all steps since the last time. Whoever reads a tensor elsewhere makes the device wait.
    """

    def start(self, engine: Engine, moment: Moment) -> None:
        """Before the first step."""

    def before_step(self, engine: Engine, moment: Moment, micro_batches: Sequence[MicroBatch]) -> None:
        """Before each step, on what it will take; ``moment`` is that before it."""

    def judge(self, loss: Tensor, gradient_norm: Tensor) -> Tensor | None:
        """Before each update: whether to leave it out, a bool on the device. No collectives, no reading."""
        return None

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        """After each step was asked for. Nothing of ``result`` is read here."""

    def vote(self) -> Vote:
        """Before steps are settled, on this rank alone."""
        return Vote.NOTHING

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> Ending | None:
        """These steps are done, the last is that of ``moment``.

        An ending, the same on all ranks, ends training here: later observers do not see these steps.
        """
        return None

    def stop(self, engine: Engine, moment: Moment, ending: Ending) -> None:
        """After the last step; not called when the run fails."""


def judgement(observers: Sequence[Observer], groups: Groups) -> Callable[[Tensor, Tensor], Tensor]:
    """What makes one judgement of those of all observers on all ranks: one bad is bad. One tiny all-reduce."""

    def judge(loss: Tensor, gradient_norm: Tensor) -> Tensor:
        found = [observer.judge(loss, gradient_norm) for observer in observers]
        bad = torch.zeros((), device=groups.device)
        for one in found:
            bad = bad if one is None else torch.maximum(bad, one.to(bad.dtype))
        return all_reduce_max(bad, groups.world) > 0

    return judge
