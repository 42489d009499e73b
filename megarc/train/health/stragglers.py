"""Ranks that are slower than the others: each waits for the slowest, so one costs all."""

from __future__ import annotations

import logging
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from megarc.parallel import gather_objects
from megarc.train.engine import Engine
from megarc.train.loop import Done, Ending, Moment, Observer

log = logging.getLogger("megarc")

# What a rank does by itself. The rest of a step is spent together, as long as the slowest takes.
ALONE = ("waiting for data", "forward")
_PROBE = "a fixed product"
_LEAST_SHARE = 0.02  # of the time that passed: less is not worth a word


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one rank since the last look: of what it does alone, and of a small fixed piece of work."""

    rank: int
    host: str
    spent: dict[str, float]
    passed: float


@dataclass(frozen=True, slots=True)
class Slow:
    """``rank`` took ``factor`` times the median for ``what``."""

    rank: int
    host: str
    what: str
    factor: float


class Stragglers(Observer):
    """At each log interval compares the ranks' own times; who is slow twice in a row is named.

    Where layers are split (tensor ranks, ZeRO 3) a rank waits for its fellows
    inside its forward pass; there the fixed product and the data tell.
    """

    def __init__(self, every: int, factor: float) -> None:
        self.every, self.factor = every, factor
        self.summary: dict[str, float] = {}
        self._suspects: set[tuple[int, str]] = set()
        self._clock = time.monotonic()

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> Ending | None:
        if not moment.every(self.every) or engine.groups.world.size == 1:
            return None
        spent = engine.heartbeat.take_spent()
        own = {name: spent.get(name, 0.0) for name in ALONE} | {_PROBE: _probe(engine.groups.device)}
        now = time.monotonic()
        times = Times(engine.groups.world.rank, socket.gethostname(), own, now - self._clock)
        self._clock = now
        gathered = gather_objects(times, engine.groups.world)
        if engine.groups.first:
            self.summary = summary(gathered)
            found = slow(gathered, self.factor)
            again = [one for one in found if (one.rank, one.what) in self._suspects]
            self._suspects = {(one.rank, one.what) for one in found}
            for one in again:
                log.warning(
                    "rank %d on %s is slow: %.1f times the median in '%s', until step %d",
                    one.rank, one.host, one.factor, one.what, moment.step,
                )  # fmt: skip
        return None


def slow(times: Sequence[Times], factor: float) -> list[Slow]:
    """Those beyond ``factor`` times the median (the lower one of two), where that is worth a word."""
    found = []
    for what in times[0].spent:
        median = statistics.median_low(one.spent[what] for one in times)
        for one in times:
            mine = one.spent[what]
            worth = what == _PROBE or mine - median > _LEAST_SHARE * one.passed
            if worth and mine > factor * median:
                found.append(Slow(one.rank, one.host, what, mine / max(median, 1e-9)))
    return found


def summary(times: Sequence[Times]) -> dict[str, float]:
    """For the metrics: of each phase the median and the slowest rank's seconds, and which that is."""
    values: dict[str, float] = {}
    for what in ALONE:
        slowest = max(times, key=lambda one: one.spent[what])
        name = f"ranks/{what.replace(' ', '_')}"
        values[f"{name}_median_seconds"] = statistics.median(one.spent[what] for one in times)
        values[f"{name}_slowest_seconds"] = slowest.spent[what]
        values[f"{name}_slowest_rank"] = slowest.rank
    return values


def _probe(device: torch.device) -> float:
    """Seconds of a small product, the best of three."""
    size = 2048 if device.type == "cuda" else 192
    a = torch.ones(size, size, device=device)
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - begun)
    return best
