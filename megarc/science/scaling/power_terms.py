"""Fits of ``exp(e) + sum of exp(c_j) / x_j^g_j`` to losses, robust against a bad point.

The sum of Huber losses of the residuals of log L is minimised, by L-BFGS from a grid of starts. Source: Hoffmann et al.
2022, appendix D.3. The *sum*, with residuals in units of the Huber threshold, an exact gradient and a tight tolerance:
with the mean, or a loose one, the search stops early and calls it a success (Besiroglu et al. 2024 found that in the
published fit).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.errors import UserError

Array: TypeAlias = npt.NDArray[np.float64]

DELTA = 1e-3  # Huber's threshold, of log L
_AGREE = 0.01  # of the best objective: so near is a start that has found the same minimum
_BOUND = 3.0  # of exponents


@dataclass(frozen=True, slots=True)
class Terms:
    """A fit: ``constant`` E, and of each term its scale and exponent (``scale / x^exponent``).

    Attributes:
        objective: the sum of Huber losses in units of DELTA squared.
        agreeing, starts: how many of the starts came within 1 % of the best objective.
    """

    constant: float
    scales: tuple[float, ...]
    exponents: tuple[float, ...]
    objective: float
    agreeing: int
    starts: int


def fit_terms(xs: Sequence[Array], losses: Array, near: Terms | None = None) -> Terms:
    """The best fit of ``losses`` [n] by one term for each of ``xs``, arrays [n] above 0.

    Args:
        near: start from there alone (a resampled fit), not from the grid.

    Raises:
        UserError: where scipy is not installed.
    """
    minimize = _minimize()
    logs = [np.log(x) for x in xs]
    middles = [float(log.mean()) for log in logs]
    centred = [log - middle for log, middle in zip(logs, middles, strict=True)]
    target = np.log(losses)
    starts = _grid(len(xs), float(target.min())) if near is None else [_packed(near, middles)]
    bounds = [(None, None)] + [(None, None), (0.0, _BOUND)] * len(xs)
    found = [
        minimize(
            _objective, start, (centred, target), "L-BFGS-B", True, bounds=bounds,
            options={"ftol": 1e-15, "gtol": 1e-8, "maxiter": 2000, "maxfun": 4000},
        )
        for start in starts
    ]  # fmt: skip
    best = min(found, key=lambda one: one.fun)
    agreeing = sum(one.fun <= best.fun * (1 + _AGREE) + 1e-9 for one in found)
    exponents = tuple(float(value) for value in best.x[2::2])
    scales = tuple(
        math.exp(c + g * middle) for c, g, middle in zip(best.x[1::2], exponents, middles, strict=True)
    )
    return Terms(math.exp(best.x[0]), scales, exponents, float(best.fun), agreeing, len(found))


def _objective(p: Array, xs: Sequence[Array], target: Array) -> tuple[float, Array]:
    """The sum of Huber losses at ``p`` = (e, c_1, g_1, c_2, g_2, ...), and its gradient."""
    logs = np.stack(
        [np.full_like(target, p[0]), *(p[1 + 2 * j] - p[2 + 2 * j] * x for j, x in enumerate(xs))]
    )
    top = logs.max(axis=0)
    weights = np.exp(logs - top)
    total = weights.sum(axis=0)
    weights /= total
    residual = (top + np.log(total) - target) / DELTA
    size = np.abs(residual)
    loss = np.where(size <= 1, residual**2 / 2, size - 0.5).sum()
    pull = np.clip(residual, -1, 1) / DELTA * weights  # [1 + terms, n]
    gradient = np.empty_like(p)
    gradient[0] = pull[0].sum()
    for j, x in enumerate(xs):
        gradient[1 + 2 * j] = pull[1 + j].sum()
        gradient[2 + 2 * j] = -(pull[1 + j] * x).sum()
    return float(loss), gradient


def _grid(terms: int, lowest: float) -> list[Array]:
    """Starts: the constant and each term's size at the middle as shares of the lowest loss, and exponents."""
    one = [(lowest + math.log(share), g) for share in (0.1, 0.5) for g in (0.2, 0.5, 0.9)]
    return [
        np.array([lowest + math.log(constant), *itertools.chain(*terms_at)])
        for constant in (0.4, 0.85)
        for terms_at in itertools.product(one, repeat=terms)
    ]


def _packed(near: Terms, middles: Sequence[float]) -> Array:
    parts = [
        (math.log(scale) - g * middle, g)
        for scale, g, middle in zip(near.scales, near.exponents, middles, strict=True)
    ]
    return np.array([math.log(near.constant), *itertools.chain(*parts)])


def _minimize() -> Any:
    try:
        from scipy.optimize import minimize
    except ImportError:
        raise UserError("scaling fits need scipy: pip install 'megarc[scaling]'") from None
    return minimize
