"""Steps that the host has asked for and not yet heard of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from megarc.parallel import Groups, all_reduce_max
from megarc.train.engine import StepResult
from megarc.train.loop.observer import Done, Moment, Observer, Vote

_MOST_SECONDS = 5.0  # unheard, so that a signal that one rank got ends the run soon
_VOTES = (Vote.END, Vote.LOOK)


class PendingSteps:
    """Settles steps where something is due after one, and else after a few seconds: all ranks after the same step.

    Reading a value waits until the device has done all that was asked of it, and then it has nothing to do until
    it is asked for more. So all values of all steps since the last time are read at once.
    """

    def __init__(self, groups: Groups, due: Callable[[Moment], bool]) -> None:
        self.groups, self._due = groups, due
        self._unread: list[tuple[Moment, list[int], StepResult]] = []
        self._most = 1  # steps until the next reading, at the latest
        self._clock = time.monotonic()

    def add(self, moment: Moment, samples: list[int], result: StepResult) -> None:
        """One more step, of these samples on this rank."""
        self._unread.append((moment, samples, result))

    def due(self, moment: Moment) -> bool:
        """Whether to settle now."""
        return len(self._unread) >= self._most or self._due(moment)

    def settle(self, moment: Moment, observers: Sequence[Observer]) -> tuple[Moment, list[Done]]:
        """All steps since the last time, and ``moment`` with what became of them and what was voted. Waits once."""
        own = Vote.NOTHING
        for observer in observers:
            own |= observer.vote()
        seconds = (time.monotonic() - self._clock) / len(self._unread)
        shared, values = self._read([*(float(vote in own) for vote in _VOTES), seconds])
        agreed = Vote.NOTHING
        for vote, wanted in zip(_VOTES, shared, strict=False):
            agreed |= vote if wanted else Vote.NOTHING
        done = [
            Done(at.step, samples, result.learning_rate, loss, norm, nll, bool(bad), bool(empty))
            for (at, samples, result), (loss, norm, nll, bad, empty) in zip(self._unread, values, strict=True)
        ]
        self._unread.clear()
        self._most = max(1, int(_MOST_SECONDS / max(shared[-1], 1e-6)))
        self._clock = time.monotonic()
        skipped = moment.skipped + sum(one.left_out for one in done)
        return replace(moment, skipped=skipped, agreed=agreed), done

    def _read(self, own: list[float]) -> tuple[list[float], list[list[float]]]:
        """The largest of ``own`` over all ranks, and loss, norm, own nll, badness and emptiness of each step."""
        shared = torch.tensor(own, device=self.groups.device)
        rows = [
            torch.stack(
                [value.float() for value in (one.loss, one.gradient_norm, one.own_nll, one.bad, one.empty)]
            )
            for *_, one in self._unread
        ]
        together = torch.cat([all_reduce_max(shared, self.groups.world), *rows]).tolist()
        count = len(own)
        return together[:count], [together[at : at + 5] for at in range(count, len(together), 5)]
