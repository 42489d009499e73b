"""How well a model predicts a text, and how sure one may be of that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_BLOCKS = 64  # of consecutive targets: long enough to be nearly independent, enough for a standard error

Places: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Score:
    """Cross-entropy over ``targets``, each once.

    Attributes:
        targets: positions in the text.
        sums: negative log-likelihood in nats, summed over each of up to 64 equal blocks of the targets.
        bytes_per_token: of the text; None where unknown.
    """

    targets: range
    sums: tuple[float, ...]
    bytes_per_token: float | None = None

    @property
    def tokens(self) -> int:
        return len(self.targets)

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood."""
        return math.fsum(self.sums) / self.tokens

    @property
    def bits_per_token(self) -> float:
        return self.nats_per_token / math.log(2)

    @property
    def bits_per_byte(self) -> float | None:
        return None if self.bytes_per_token is None else self.bits_per_token / self.bytes_per_token

    @property
    def standard_error(self) -> float:
        """Of ``nats_per_token``, as an estimate for text of this kind; NaN for a single target.

        From the blocks, not from single tokens: neighbours are hard or easy together.
        """
        return _standard_error(self.targets, self.sums)

    def lower_than(self, other: Score) -> tuple[float, float]:
        """``(difference, standard error)`` in nats a token: how much lower this is than ``other``.

        Both have read the same text, so most of the noise is common and drops out: the error is
        far smaller than that of either.
        """
        if self.targets != other.targets:
            raise ValueError(f"scores of other targets: {self.targets} and {other.targets}")
        sums = tuple(theirs - ours for ours, theirs in zip(self.sums, other.sums, strict=True))
        return math.fsum(sums) / self.tokens, _standard_error(self.targets, sums)


def blocks(targets: range) -> int:
    """How many blocks the targets are cut into."""
    return min(_BLOCKS, len(targets))


def block_of(place: Places, targets: range) -> Places:
    """The block [..] in which each of the positions ``place`` [..] lies."""
    return (place - targets.start) * blocks(targets) // len(targets)


def _standard_error(targets: range, sums: tuple[float, ...]) -> float:
    """Of the mean over ``targets``, from the sums of its equal parts."""
    counts: Places = np.diff(-(-np.arange(len(sums) + 1) * len(targets) // len(sums)))
    return ratio_error(np.asarray(sums), counts)


def ratio_error(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.integer]) -> float:
    """Standard error of ``sum(sums) / sum(counts)`` over blocks [blocks]; NaN for one block.

    Source: Cochran 1977, Sampling Techniques, section 6.3.
    """
    if len(sums) < 2:
        return math.nan
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt((residuals**2).sum() * len(sums) / (len(sums) - 1)) / counts.sum())
