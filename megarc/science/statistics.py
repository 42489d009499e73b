"""Whether two arms differ, from runs of the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of paired differences, its standard error and two-sided p-value (NaN for one pair), and how many."""

    mean: float
    error: float
    p: float
    pairs: int


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """``theirs - ours``, pair by pair: above 0 where ours is lower. Student's t test of paired samples."""
    differences = np.asarray(theirs, dtype=np.float64) - np.asarray(ours, dtype=np.float64)
    count, mean = len(differences), float(differences.mean())
    if count < 2:
        return Difference(mean, math.nan, math.nan, count)
    error = float(differences.std(ddof=1) / math.sqrt(count))
    p = 0.0 if error == 0 and mean else 1.0 if error == 0 else beyond(mean / error, count - 1)
    return Difference(mean, error, p, count)


def beyond(t: float, freedom: int) -> float:
    """The probability that Student's t with ``freedom`` degrees is further from 0 than ``t``.

    With t = sqrt(freedom) * tan(x) the density becomes cos(x) ** (freedom - 1), integrated here by Simpson's rule.
    """
    end = math.atan(abs(t) / math.sqrt(freedom))

    def integral(low: float, high: float) -> float:
        x = np.linspace(low, high, 4001)
        y = np.cos(x) ** (freedom - 1)
        return float((y[0] + 4 * y[1::2].sum() + 2 * y[2:-1:2].sum() + y[-1]) * (x[1] - x[0]) / 3)

    return integral(end, math.pi / 2) / integral(0.0, math.pi / 2)
