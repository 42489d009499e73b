"""What watches a run: metrics, held-out loss, checkpoints, health. All have the same few hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, Flag, auto

import torch
from torch import Tensor

from megarc.parallel import Groups, all_reduce_max
from megarc.train.batches import Interval
from megarc.train.engine import Engine, StepResult
from megarc.train.feed import MicroBatch


class Vote(Flag):
    """What an observer wants, seen from its rank; what one rank wants, all ranks do."""

    APPLY = 0
    SKIP = auto()  # leave this update out
    END = auto()  # save after this step, and end
    SETTLE = auto()  # a save of mine failed: let us look together


class Ending(Enum):
    """How a stretch of training ended."""

    FINISHED = "finished"
    SAVED = "saved"  # before its end; the same command goes on
    BACK = "back"  # go on from an earlier checkpoint


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the run is after a step: ``step`` of ``total`` are done, ``skipped`` of them without an update.

    ``agreed`` is what all ranks voted before the update of the last step, which took samples ``before`` to
    ``samples - 1``.
    """

    step: int
    total: int
    samples: int
    skipped: int = 0
    agreed: Vote = Vote.APPLY
    before: int = 0

    @property
    def last(self) -> bool:
        return self.step == self.total

    def every(self, interval: Interval | int) -> bool:
        """Whether something due at each multiple of ``interval`` (a number: steps), and at the end, is due now."""
        if isinstance(interval, int):
            interval = Interval(steps=interval)
        return self.last or interval.due(self.step, self.before, self.samples)


class Observer:
    """Called by all ranks alike, in the order of the list in ``run.py``. What is not needed is left out."""

    def start(self, engine: Engine, moment: Moment) -> None:
        """Before the first step."""

    def before_step(self, engine: Engine, moment: Moment, micro_batches: Sequence[MicroBatch]) -> None:
        """Before each step, on what it will take; ``moment`` is that before it."""

    def before_update(self, moment: Moment, loss: float, gradient_norm: float) -> Vote:
        """The gradient is known; ``moment`` is that before the step. No collectives here."""
        return Vote.APPLY

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> Ending | None:
        """After each step. An ending, the same on all ranks, ends the stretch here."""
        return None

    def stop(self, engine: Engine, moment: Moment, ending: Ending) -> None:
        """After the last step; not called when the run fails."""


class Ballot:
    """Asks all observers of all ranks before an update: one tiny all-reduce."""

    def __init__(self, observers: Sequence[Observer], groups: Groups, moment: Moment) -> None:
        self.observers, self.groups, self.moment = observers, groups, moment
        self.agreed = Vote.APPLY

    def __call__(self, loss: Tensor, gradient_norm: Tensor) -> bool:
        """Whether to apply the update. Waits for the device once."""
        values = torch.stack([loss, gradient_norm.to(loss.dtype)]).tolist()
        own = Vote.APPLY
        for observer in self.observers:
            own |= observer.before_update(self.moment, *values)
        self.agreed = agree(own, self.groups)
        return Vote.SKIP not in self.agreed


def agree(own: Vote, groups: Groups) -> Vote:
    """The union of all ranks' votes."""
    if groups.world.size == 1:
        return own
    wanted = torch.tensor([float(vote in own) for vote in Vote], device=groups.device)
    all_reduce_max(wanted, groups.world)
    agreed = Vote.APPLY
    for vote, count in zip(Vote, wanted.tolist(), strict=True):
        agreed |= vote if count else Vote.APPLY
    return agreed
