"""L(N, D) = E + A / N^alpha + B / D^beta, and what it says about a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from megarc.errors import UserError
from megarc.science.scaling.points import Point
from megarc.science.scaling.power_terms import Terms, fit_terms

_FEWEST = 6  # points, for five numbers
_LEAST_RANGE = 1.2  # the largest size over the smallest, of parameters and of tokens
_LEAST_EXPONENT = 1e-3  # published ones are .05 and above; below, the term is a constant


@dataclass(frozen=True, slots=True)
class Best:
    """The best allocation of a budget of FLOPs: parameters, tokens, and the loss that the surface predicts."""

    flops: float
    parameters: float
    tokens: float
    loss: float


@dataclass(frozen=True, slots=True)
class Surface:
    """The five numbers. Source: Hoffmann et al. 2022, section 3.3."""

    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    @property
    def size_exponent(self) -> float:
        """The best N grows as C to this power: ``beta / (alpha + beta)``."""
        return self.beta / (self.alpha + self.beta)

    @property
    def falls_with(self) -> tuple[bool, bool]:
        """Whether the loss depends on parameters, and on tokens; where it does not, no allocation is best."""
        return self.a > 0 and self.alpha >= _LEAST_EXPONENT, self.b > 0 and self.beta >= _LEAST_EXPONENT

    def best(self, flops: float, factor: float = 6.0) -> Best:
        """The N and D of lowest loss with ``factor`` N D = ``flops``. Source: Hoffmann et al. 2022, equation 4."""
        whole = self.alpha + self.beta
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / whole)
        parameters = g * (flops / factor) ** (self.beta / whole)
        tokens = flops / factor / parameters
        return Best(flops, parameters, tokens, self.loss(parameters, tokens))


@dataclass(frozen=True, slots=True)
class SurfaceFit:
    """A surface, the same refitted to resampled points, and how many starts agree on it.

    ``flat`` of the refitted ones saw no effect of parameters or of tokens; they are not among ``resampled``.
    """

    surface: Surface
    resampled: list[Surface]
    terms: Terms
    flat: int = 0


def fit_surface(
    points: Sequence[Point],
    *,
    resamples: int = 200,
    seed: int = 0,
    advance: Callable[[int], None] = lambda fits: None,
) -> SurfaceFit:
    """The surface through ``points``, and ``resamples`` through as many points drawn with replacement.

    Args:
        advance: called with how many fits more are done, 1 + ``resamples`` in all.

    Raises:
        UserError: for too few points, all of one size or one number of tokens, or a loss that falls with neither.
    """
    n, d, losses = (
        np.array([getattr(one, name) for one in points]) for name in ("parameters", "tokens", "loss")
    )
    _check(points, n.tolist(), d.tolist())
    terms = fit_terms([n, d], losses)
    surface = _surface(terms)
    for what, falls in zip(("parameters", "tokens"), surface.falls_with, strict=True):
        if not falls:
            raise UserError(
                f"the loss of these points does not fall with the number of {what}, so L(N, D) has no best size; "
                "look for runs that went wrong, or add runs of other sizes"
            )
    advance(1)
    random, resampled = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = random.integers(0, len(points), len(points))
        resampled.append(_surface(fit_terms([n[drawn], d[drawn]], losses[drawn], terms)))
        advance(1)
    kept = [one for one in resampled if all(one.falls_with)]
    return SurfaceFit(surface, kept, terms, len(resampled) - len(kept))


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The middle ``level`` of ``values``."""
    low, high = np.quantile(np.asarray(values), [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def _surface(terms: Terms) -> Surface:
    return Surface(terms.constant, *terms.scales, *terms.exponents)


def _check(points: Sequence[Point], n: Sequence[float], d: Sequence[float]) -> None:
    if len(points) < _FEWEST:
        raise UserError(f"{len(points)} points for the five numbers of L(N, D); give {_FEWEST} or more")
    for what, values in (("parameters", n), ("tokens", d)):
        if max(values) < _LEAST_RANGE * min(values):
            raise UserError(
                f"all points have about the same number of {what} ({min(values):.4g}): how the loss depends on it "
                "cannot be seen; add runs of other sizes"
            )
