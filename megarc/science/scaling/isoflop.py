"""isoFLOP curves: at each budget, the size of the lowest loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megarc.science.scaling.points import Point

_SAME_BUDGET = 1.25  # FLOPs within this factor of the smallest are one budget
_FEWEST = 4  # sizes, for a parabola that can be wrong


@dataclass(frozen=True, slots=True)
class IsoFlop:
    """The points of one budget, and the parabola through their losses over log N.

    Attributes:
        flops: the budget: the geometric mean of theirs.
        points: by ascending size.
        best_size: at the parabola's lowest place; None where that lies outside the points' sizes, or there is none.
        parabola: coefficients of log N squared, log N, 1; None for fewer than four sizes.
    """

    flops: float
    points: tuple[Point, ...]
    best_size: float | None
    parabola: tuple[float, float, float] | None


def groups(points: Sequence[Point]) -> list[list[Point]]:
    """The points by budget: those whose FLOPs are within a factor of 1.25 of the smallest of the budget."""
    found: list[list[Point]] = []
    for point in sorted(points, key=lambda one: one.flops):
        if found and point.flops <= _SAME_BUDGET * found[-1][0].flops:
            found[-1].append(point)
        else:
            found.append([point])
    return found


def isoflops(points: Sequence[Point]) -> list[IsoFlop]:
    """A curve for each budget. Source: Hoffmann et al. 2022, section 3.2."""
    return [_curve(sorted(group, key=lambda one: one.parameters)) for group in groups(points)]


def size_law(curves: Sequence[IsoFlop]) -> tuple[float, float] | None:
    """``(scale, exponent)`` of best N = scale C^exponent; None for fewer than two minima."""
    known = [(math.log(one.flops), math.log(one.best_size)) for one in curves if one.best_size is not None]
    if len(known) < 2:
        return None
    x, y = (np.array(column) for column in zip(*known, strict=True))
    exponent, scale = np.polyfit(x, y, 1).tolist()
    return math.exp(scale), exponent


def _curve(points: Sequence[Point]) -> IsoFlop:
    flops = math.exp(sum(math.log(one.flops) for one in points) / len(points))
    sizes = np.log([one.parameters for one in points])
    if len(np.unique(np.round(sizes, 3))) < _FEWEST:
        return IsoFlop(flops, tuple(points), None, None)
    losses = np.array([one.loss for one in points])
    bent, slope, level = np.polyfit(sizes, losses, 2).tolist()
    lowest = -slope / (2 * bent) if bent > 0 else math.nan
    inside = sizes.min() < lowest < sizes.max()
    return IsoFlop(flops, tuple(points), math.exp(lowest) if inside else None, (bent, slope, level))
