"""Several sources in fixed proportion: integer quotas of every block of 65,536 samples.

Within a block each source is spread evenly, so that a short prefix of a run is
in proportion too. All blocks are alike, so that sample k's source, and how many
samples of that source came before, follow from k alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from megarc.data.permutation import Numbers
from megarc.errors import UserError

BLOCK = 65_536


class Blend:
    """``quotas[j]`` samples of source j in every block; they sum to ``BLOCK``."""

    def __init__(self, quotas: Sequence[int]) -> None:
        self.quotas = np.asarray(quotas, dtype=np.int64)
        self._source, self._turn = _spread(self.quotas)

    def __call__(self, samples: npt.ArrayLike) -> tuple[Numbers, Numbers]:
        """For samples [B] of the order: their sources [B], and which sample of that source is due [B]."""
        block, place = np.divmod(np.asarray(samples, dtype=np.int64), BLOCK)
        source = self._source[place]
        return source, block * self.quotas[source] + self._turn[place]


def quotas(weights: Sequence[float]) -> list[int]:
    """``BLOCK`` split in proportion to ``weights`` [sources], by largest remainder; each gets at least 1.

    Every quota is within 1 of its exact share, except where sources of less
    than 1/65,536 take their 1 from the others.

    Raises:
        UserError: for weights that are no proportion, or more sources than a block has samples.
    """
    if len(weights) > BLOCK:
        raise UserError(f"a blend of {len(weights)} sources; at most {BLOCK} can be mixed. Merge some")
    for number, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(f"source {number} of the blend has weight {weight}; it must be more than 0")
    exact = np.asarray(weights, dtype=np.float64) / math.fsum(weights) * BLOCK
    whole = np.maximum(np.floor(exact).astype(np.int64), 1)
    missing = BLOCK - int(whole.sum())
    while missing:  # once, or a few times where many tiny sources were lifted to 1
        step = 1 if missing > 0 else -1
        claims = np.argsort(-step * (exact - whole), kind="stable")
        movable = claims[whole[claims] + step >= 1][: abs(missing)]
        whole[movable] += step
        missing -= step * len(movable)
    return [int(quota) for quota in whole]


def _spread(quotas: Numbers) -> tuple[Numbers, Numbers]:
    """Source [BLOCK] and turn [BLOCK] at each place of a block.

    The t-th of a source's q samples is due at (t + 1/2) / q of the block; all are
    sorted by that. After any prefix of p places a source of share w, one of J, has
    had its p * w samples, give or take (1 + w * J) / 2.
    """
    source: Numbers = np.repeat(np.arange(len(quotas)), quotas)
    turn = np.arange(len(source)) - np.repeat(np.cumsum(quotas) - quotas, quotas)
    due = (2 * turn + 1) / (2 * quotas[source])
    order = np.lexsort((source, due))
    return source[order], turn[order]
