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

    def counts(self, places: int) -> Numbers:
        """Of the first ``places`` samples, those of each source: [sources]."""
        blocks, rest = divmod(places, BLOCK)
        return blocks * self.quotas + np.bincount(self._source[:rest], minlength=len(self.quotas))


class StagedBlend:
    """Blends that follow each other; each source goes on where it was, so none repeats before its epoch is over.

    Args:
        stages: where each begins, in samples of the order (the first at 0), and its quotas.
    """

    def __init__(self, stages: Sequence[tuple[int, Sequence[int]]]) -> None:
        self._begins: Numbers = np.asarray([begin for begin, _ in stages], dtype=np.int64)
        self._blends = [Blend(quotas) for _, quotas in stages]
        taken: Numbers = np.zeros(len(stages[0][1]), dtype=np.int64)
        self._taken = [taken]  # of each source, before each stage
        for blend, length in zip(self._blends, np.diff(self._begins).tolist(), strict=False):
            taken = taken + blend.counts(length)
            self._taken.append(taken)

    def __call__(self, samples: npt.ArrayLike) -> tuple[Numbers, Numbers]:
        """As ``Blend``; a source's samples are counted from the first stage on."""
        wanted: Numbers = np.asarray(samples, dtype=np.int64)
        stage = np.searchsorted(self._begins, wanted, side="right") - 1
        source, turn = np.empty_like(wanted), np.empty_like(wanted)
        for which in np.unique(stage).tolist():
            mine = stage == which
            drawn, turns = self._blends[which](wanted[mine] - self._begins[which])
            source[mine], turn[mine] = drawn, turns + self._taken[which][drawn]
        return source, turn

    def counts(self, places: int) -> Numbers:
        """Of the first ``places`` samples, those of each source: [sources]."""
        which = int(np.searchsorted(self._begins, places, side="right")) - 1
        return self._taken[which] + self._blends[which].counts(places - int(self._begins[which]))


def staged_quotas(weights: Sequence[float]) -> list[int]:
    """``quotas`` of a stage, in which sources of weight 0 are not read."""
    some = iter(quotas([weight for weight in weights if weight != 0]))
    return [next(some) if weight != 0 else 0 for weight in weights]


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
