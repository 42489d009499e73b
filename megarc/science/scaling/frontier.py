"""L(C) = E + K / C^gamma through the best run of each budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megarc.science.scaling.isoflop import groups
from megarc.science.scaling.points import Point
from megarc.science.scaling.power_terms import Terms, fit_terms

_FEWEST = 4  # budgets, for three numbers


@dataclass(frozen=True, slots=True)
class Frontier:
    """The three numbers, the same for resampled points, and the runs that they go through."""

    e: float
    k: float
    gamma: float
    resampled: list[tuple[float, float, float]]
    points: tuple[Point, ...]

    def loss(self, flops: float) -> float:
        return self.e + self.k / flops**self.gamma


def fit_frontier(points: Sequence[Point], *, resamples: int = 200, seed: int = 0) -> Frontier | None:
    """Through the lowest loss of each budget that no smaller budget reaches; None for fewer than four of them."""
    lowest: list[Point] = []
    for group in groups(points):
        best = min(group, key=lambda one: one.loss)
        if not lowest or best.loss < lowest[-1].loss:
            lowest.append(best)
    if len(lowest) < _FEWEST:
        return None
    flops, losses = np.array([one.flops for one in lowest]), np.array([one.loss for one in lowest])
    terms = fit_terms([flops], losses)
    random, resampled = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = random.integers(0, len(lowest), len(lowest))
        if len(set(drawn.tolist())) >= 3:
            resampled.append(_numbers(fit_terms([flops[drawn]], losses[drawn], terms)))
    return Frontier(*_numbers(terms), resampled, tuple(lowest))


def _numbers(terms: Terms) -> tuple[float, float, float]:
    return terms.constant, terms.scales[0], terms.exponents[0]
