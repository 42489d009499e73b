"""Takes each step's weights into their average."""

from __future__ import annotations

import torch
from torch import Tensor

from megarc.train.config import AverageConfig
from megarc.train.engine import Engine, StepResult
from megarc.train.loop.observer import Moment, Observer


class Averaging(Observer):
    """Does nothing where no average is kept.

    A plain mean counts the weights that it has, on the device, since only the device knows which steps were skipped.

    Args:
        taken: weights in the plain mean of the checkpoint that the run resumes from; 0: it had none.
    """

    def __init__(self, keys: AverageConfig, taken: int) -> None:
        self.keys = keys
        self._taken = torch.tensor(float(taken))

    @property
    def taken(self) -> int:
        """Weights in the plain mean; 0 where there is none. Waits for the device."""
        return int(self._taken)

    def start(self, engine: Engine, moment: Moment) -> None:
        self._taken = self._taken.to(engine.groups.device)
        if engine.average is None or self.keys.last_k is None:
            self._taken.zero_()
        elif moment.step > 0 and self.taken == 0:
            # The weights of a checkpoint without such a mean are those after its last step: the first to be taken in.
            engine.average.restart()
            self._taken.fill_(1.0)

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        if engine.average is None:
            return
        if self.keys.decay is not None:
            # copied, it would wait
            share = torch.full((), self.keys.share(moment.step), device=result.bad.device)
        else:
            share = self._share_of_mean(moment, result.bad)
        engine.average.update(share, result.bad)

    def _share_of_mean(self, moment: Moment, bad: Tensor) -> Tensor:
        if moment.step <= self.keys.first(moment.total):  # before it, the mean is the weights
            self._taken.zero_()
        self._taken += torch.where(bad, 0.0, 1.0)
        return 1 / self._taken.clamp(min=1)
