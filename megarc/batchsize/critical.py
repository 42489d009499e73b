"""The critical batch from steps to a loss, after Zhang et al. 2024 (2410.21676).

Steps fall with the batch as ``steps = a + b / batch``: b is what data costs, a
what no batch saves. Linear scaling from an optimal batch would need
``(a + b/optimal) * optimal / batch`` steps; the critical batch is where steps
exceed that by an overhead p (theirs: 20 %):

    B* = (1 + p) * optimal + p * b / a
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.batchsize.steps_table import StepsTable
from megarc.errors import UserError

Floats: TypeAlias = npt.NDArray[np.float64]

OVERHEADS = (0.1, 0.2, 0.5)
_RESAMPLINGS = 2000
_LEVEL = 0.95
_FLAT = 1e-3  # a share of the fewest steps: a floor below this is none


@dataclass(frozen=True, slots=True)
class Fit:
    """``steps = a + b / batch``; ``residuals`` [points] are of log steps."""

    a: float
    b: float
    residuals: tuple[float, ...]

    def steps(self, batch: float) -> float:
        """Steps to the target at ``batch``."""
        return self.a + self.b / batch

    def critical(self, optimal: float, overhead: float) -> float:
        """The batch at which steps exceed linear scaling from ``optimal`` by ``overhead``."""
        return (1 + overhead) * optimal + overhead * self.b / self.a


@dataclass(frozen=True, slots=True)
class CriticalBatch:
    """The answer for one table.

    Attributes:
        interval: 95 %, by resampling residuals; its upper end is infinite where some resampled tables
            have no floor, so that the data do not bound the critical batch from above.
        overheads: overhead -> critical batch and its interval.
        beyond: whether the critical batch lies beyond the largest batch of the table: extrapolated.
    """

    fit: Fit
    optimal: float
    overheads: dict[float, tuple[float, tuple[float, float]]]
    overhead: float
    beyond: bool

    @property
    def batch(self) -> float:
        return self.overheads[self.overhead][0]

    @property
    def interval(self) -> tuple[float, float]:
        return self.overheads[self.overhead][1]


def critical_batch(
    table: StepsTable,
    optimal: float,
    *,
    overhead: float = 0.2,
    resamplings: int = _RESAMPLINGS,
    seed: int = 0,
) -> CriticalBatch:
    """Fits ``table`` and asks at each overhead of 10, 20, 50 % (and ``overhead``).

    Args:
        optimal: the batch from which linear scaling is counted, in the table's unit (theirs: 256).

    Raises:
        UserError: where the table shows no floor, so that every size still scales linearly.
    """
    if not (math.isfinite(optimal) and optimal > 0):
        raise UserError(f"the optimal batch is {optimal:g}; it must be above 0")
    if not (math.isfinite(overhead) and overhead > 0):
        raise UserError(f"the overhead is {overhead:g}; it must be above 0, 0.2 for 20 %")
    fit = fit_steps(table.batches, table.steps)
    if fit.a < _FLAT * min(table.steps):
        raise UserError(
            f"steps still fall in proportion to the batch up to {max(table.batches):g}: the critical batch "
            "lies beyond, and these data cannot say where; add larger batches"
        )
    ratios = _resampled(table, fit, resamplings, seed)
    asked = sorted({*OVERHEADS, overhead})
    found = {share: (fit.critical(optimal, share), _interval(ratios, optimal, share)) for share in asked}
    beyond = found[overhead][0] > max(table.batches)
    return CriticalBatch(fit, optimal, found, overhead, beyond)


def fit_steps(batches: Sequence[float], steps: Sequence[float]) -> Fit:
    """Least squares of ``log(a + b/batch)`` against log steps: the fit that gives the paper's figures.

    In log steps a run of 46,000 steps and one of 1,600 count alike. Levenberg
    and Marquardt's method on (log a, log b), so that both stay above 0.
    """
    x, y = np.asarray(batches, dtype=np.float64), np.log(np.asarray(steps, dtype=np.float64))
    log_a, log_b = _solve(np.log(x), y[None])[0].tolist()
    residuals = y - np.logaddexp(log_a, log_b - np.log(x))
    return Fit(math.exp(log_a), math.exp(log_b), tuple(residuals.tolist()))


def _solve(log_batch: Floats, y: Floats, iterations: int = 200) -> Floats:
    """``(log a, log b)`` [tables, 2] that minimise the squares of ``y - log(a + b/batch)``, y [tables, points]."""
    at: Floats = np.stack([y.min(1) - 0.1, (y + log_batch).min(1)], axis=1)
    damping = np.full(len(y), 1e-3)

    def rest(point: Floats) -> Floats:
        return y - np.logaddexp(point[:, :1], point[:, 1:] - log_batch)

    left = rest(at)
    for _ in range(iterations):
        fitted = y - left
        slopes = np.stack([np.exp(at[:, :1] - fitted), np.exp(at[:, 1:] - log_batch - fitted)], axis=1)
        normal, pull = slopes @ slopes.transpose(0, 2, 1), (slopes @ left[:, :, None])
        normal[:, [0, 1], [0, 1]] = normal[:, [0, 1], [0, 1]] * (1 + damping[:, None]) + 1e-300
        move = np.clip(np.linalg.solve(normal, pull)[:, :, 0], -5, 5)
        moved = rest(at + move)
        better = (moved**2).sum(1) <= (left**2).sum(1)
        at, left = np.where(better[:, None], at + move, at), np.where(better[:, None], moved, left)
        damping = np.clip(np.where(better, damping / 3, damping * 3), 1e-12, 1e12)
        if (np.abs(move).max(1) < 1e-12).all() or (damping >= 1e12).all():
            break
    return at


def _resampled(table: StepsTable, fit: Fit, times: int, seed: int) -> Floats:
    """b / a of ``times`` tables whose residuals are drawn anew from the fit's own; inf without a floor.

    Residuals are centred and widened by sqrt(n / (n - 2)), for the two numbers that were fitted to them.
    """
    x, count = np.asarray(table.batches, dtype=np.float64), len(table.batches)
    residuals = np.asarray(fit.residuals) - np.mean(fit.residuals)
    residuals *= math.sqrt(count / (count - 2))
    fitted = np.log(fit.a + fit.b / x)
    draws = np.random.default_rng(seed).integers(0, count, size=(times, count))
    y = fitted + residuals[draws]
    solved = _solve(np.log(x), y)
    none = solved[:, 0] < y.min(1) + math.log(_FLAT)
    return np.where(none, math.inf, np.exp(np.minimum(solved[:, 1] - solved[:, 0], 700)))


def _interval(ratios: Floats, optimal: float, overhead: float) -> tuple[float, float]:
    ordered = np.sort((1 + overhead) * optimal + overhead * ratios)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    return float(low), float(high)
