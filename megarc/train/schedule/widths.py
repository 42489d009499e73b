"""Which widths of a nested model a step trains: a function of the seed and the step's number alone."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

from megarc.model import kept_of
from megarc.train.config import RunConfig


class Width(NamedTuple):
    """A pass of a step's samples through the model.

    Attributes:
        kept: neurons of each group that take part; None: all.
        share: its part of the step's loss; those of a step sum to 1.
    """

    kept: int | None = None
    share: float = 1.0


Widths = Callable[[int], Sequence[Width]]
"""The widths of step t, t = 0, 1, ... of the run."""


def widths_of(config: RunConfig) -> Widths:
    """Of a run: one drawn for each step, or all at each, by ``objective.widths``."""
    if config.model.nested is None:
        return lambda step: [Width()]
    given = config.objective.width_weights or [1.0] * len(config.model.nested)
    shares = [weight / sum(given) for weight in given]
    kept = [kept_of(config.model, width) for width in config.model.nested]
    if config.objective.widths == "all":
        every = [Width(one, share) for one, share in zip(kept, shares, strict=True)]
        return lambda step: every
    bounds = list(accumulate(shares))

    def drawn(step: int) -> list[Width]:
        place = bisect_right(bounds, _uniform(f"{config.seed}/widths/{step}"))
        return [Width(kept[min(place, len(kept) - 1)])]

    return drawn


def heaviest(config: RunConfig) -> Sequence[Width]:
    """The widths of the step that takes the most memory."""
    return widths_of(config)(0) if passes(config) > 1 else [Width()]


def passes(config: RunConfig) -> int:
    """How often a step's samples go through the model."""
    return len(widths_of(config)(0))


def _uniform(text: str) -> float:
    """A number in [0, 1), the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "little") / 2**48
