"""The critical batch over sizes of model or data: a line in logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from megarc.errors import UserError


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """``critical batch = scale * size ** exponent``, in the units that it was fitted to."""

    scale: float
    exponent: float

    def at(self, size: float) -> float:
        """The critical batch at ``size``."""
        return self.scale * size**self.exponent

    def size_for(self, batch: float) -> float:
        """The size at which ``batch`` is critical."""
        return (batch / self.scale) ** (1 / self.exponent)

    def __str__(self) -> str:
        return f"{self.scale:.4g} * size^{self.exponent:.4g}"


def fit_power_law(points: Sequence[tuple[float, float]]) -> PowerLaw:
    """Least squares in logarithms through ``(size, critical batch)``; two points are met exactly.

    Raises:
        UserError: for fewer than two sizes, or one that is not above 0.
    """
    if any(not (math.isfinite(value) and value > 0) for point in points for value in point):
        raise UserError("a power law needs sizes and critical batches above 0")
    if len({size for size, _ in points}) < 2:
        raise UserError("a power law over sizes needs critical batches at two sizes or more")
    x, y = ([math.log(value) for value in column] for column in zip(*points, strict=True))
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    exponent = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / sum(
        (a - middle_x) ** 2 for a in x
    )
    return PowerLaw(math.exp(middle_y - exponent * middle_x), exponent)
