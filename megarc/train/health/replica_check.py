"""Data ranks hold the same weights, bit for bit; one that doesn't is damaged."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Sequence

import torch

from megarc.errors import UserError, reported_once
from megarc.parallel import describe_ranks, gather_objects
from megarc.train.engine import Engine, StepResult
from megarc.train.loop import Moment, Observer
from megarc.train.schedule import Interval

log = logging.getLogger("megarc")

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
Prints = dict[str, int]


class Replicas(Observer):
    """Every so often compares the weights that data ranks hold alike; names who differs, and ends the run."""

    def __init__(self, every: Interval) -> None:
        self.every = every
        self._equal_at = 0

    def start(self, engine: Engine, moment: Moment) -> None:
        self._equal_at = moment.step
        if engine.groups.first and (engine.config.parallel.zero == 3 or engine.groups.replicas.size == 1):
            log.warning(
                "health.replicas finds nothing to compare: with parallel.zero=3, or one data rank, no two "
                "ranks hold the same weights"
            )

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        if not moment.every(self.every) or engine.config.parallel.zero == 3:
            return
        world = engine.groups.world
        own = (world.rank, socket.gethostname(), prints_of(engine))
        gathered = gather_objects(own, engine.groups.replicas)
        wrong = odd_ones([prints for *_, prints in gathered])
        found = [f"{_named(gathered, ranks)} in {name}" for name, ranks in sorted(wrong.items())]
        everywhere = [text for texts in gather_objects(found, world) for text in texts]
        if everywhere:
            with reported_once(engine.groups.first):
                raise UserError(self._report(sorted(set(everywhere)), moment))
        self._equal_at = moment.step

    def _report(self, found: list[str], moment: Moment) -> str:
        return (
            f"weights that must be equal differ after step {moment.step}: {'; '.join(found[:4])}"
            + (f" and {len(found) - 4} more" if len(found) > 4 else "")
            + f". A memory or a device is damaged: leave that host out, and resume from a checkpoint of step "
            f"{self._equal_at} or before, when they were last seen equal (remove later ones)"
        )


def prints_of(engine: Engine) -> Prints:
    """A number for each parameter that every data rank holds: the sum of its bits as integers; any flip changes it."""
    named = [
        (name, parameter.detach().view(-1))
        for name, parameter, record in engine.parameters()
        if record.experts == 1
    ]
    if not named:
        return {}
    sums = [flat.view(_INTEGERS[flat.itemsize]).sum(dtype=torch.int64) for _, flat in named]
    return {name: int(value) for (name, _), value in zip(named, torch.stack(sums).tolist(), strict=True)}


def odd_ones(prints: Sequence[Prints]) -> dict[str, list[int]]:
    """Of each parameter in which ranks differ, those that differ from most; all where no side is larger."""
    wrong: dict[str, list[int]] = {}
    for name in prints[0]:
        values = [one[name] for one in prints]
        (most, count), *others = Counter(values).most_common()
        if others:
            tie = others[0][1] == count
            wrong[name] = [rank for rank, value in enumerate(values) if tie or value != most]
    return wrong


def _named(gathered: Sequence[tuple[int, str, Prints]], members: Sequence[int]) -> str:
    ranks, hosts = [gathered[one][0] for one in members], sorted({gathered[one][1] for one in members})
    return f"rank {describe_ranks(ranks)} (on {', '.join(hosts)})"
