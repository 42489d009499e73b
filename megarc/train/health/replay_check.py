"""A step computed twice must give the same numbers; a rank where it doesn't is damaged."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megarc.errors import UserError, reported_once
from megarc.parallel import gather_objects
from megarc.train.engine import Engine, MicroBatch, StepResult, unwanted
from megarc.train.loop import Moment, Observer
from megarc.train.schedule import Interval


@dataclass(frozen=True, slots=True)
class Print:
    """What one rank computed by itself, before anything was reduced."""

    loss: float
    squares: float  # of its gradient

    def differs(self, other: Print, tolerance: float) -> bool:
        """By more than ``tolerance`` of itself; nan equals nan."""
        return any(
            mine != theirs and abs(mine - theirs) > tolerance * abs(mine)
            for mine, theirs in ((self.loss, other.loss), (self.squares, other.squares))
            if mine == mine or theirs == theirs
        )


class Replay(Observer):
    """Runs the step after every so many twice on the same weights, the first time without an update, and compares."""

    def __init__(self, every: Interval, tolerance: float) -> None:
        self.every, self.tolerance = every, tolerance
        self._due = False
        self._rehearsed: Print | None = None
        self._listening = _GradientSquares()

    def before_step(self, engine: Engine, moment: Moment, micro_batches: Sequence[MicroBatch]) -> None:
        if not self._due:
            return
        self._listening.start(engine)
        result = engine.step(micro_batches, 0.0, unwanted)
        self._rehearsed = Print(float(result.own_nll), self._listening.take())

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        self._due = moment.every(self.every)
        if self._rehearsed is None:
            return
        first, second = self._rehearsed, Print(float(result.own_nll), self._listening.take())
        self._listening.stop()
        self._rehearsed = None
        groups = engine.groups
        differing = first.differs(second, self.tolerance)
        own = (
            f"rank {groups.world.rank} (on {socket.gethostname()}): {first} and {second}"
            if differing
            else None
        )
        gathered = [text for text in gather_objects(own, groups.world) if text]
        if gathered:
            with reported_once(groups.first):
                raise UserError(
                    f"step {moment.step} was computed twice with different results on {'; '.join(gathered[:4])}. "
                    "A memory or a device is damaged, or kernels add up in any order (health.tolerance); leave "
                    "that host out, and give the same command again"
                )


class _GradientSquares:
    """Sums the squares of this rank's own gradients, as they come out of the backward pass."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def start(self, engine: Engine) -> None:
        self._sum = torch.zeros((), dtype=torch.float64, device=engine.groups.device)

        def add(gradient: Tensor) -> None:
            assert self._sum is not None
            self._sum += gradient.detach().double().square().sum()

        self._handles = [parameter.register_hook(add) for _, parameter, _ in engine.parameters()]

    def take(self) -> float:
        """The sum since the last call."""
        assert self._sum is not None
        value = float(self._sum)
        self._sum.zero_()
        return value

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
