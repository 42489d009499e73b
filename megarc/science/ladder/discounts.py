"""The three discounts of modified Kneser-Ney, from counts of counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# where counts of counts give no possible discount; kenlm's --discount_fallback is the same
_FALLBACK = (0.5, 1.0, 1.5)


@dataclass(frozen=True, slots=True)
class Discounts:
    """What is taken from a count of 1, of 2, and of 3 or more.

    Attributes:
        replaced: the counts (1, 2, 3) whose estimate was impossible, so that a fixed value stands in.
    """

    values: tuple[float, float, float]
    replaced: tuple[int, ...]

    def of(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The discount of each of ``counts`` [..]; 0 of a count of 0."""
        table: npt.NDArray[np.float64] = np.array([0.0, *self.values])
        return table[np.minimum(counts, 3)]


def discounts(counts_of_counts: npt.NDArray[np.int64]) -> Discounts:
    """From ``counts_of_counts`` [4]: how many grams occur once, twice, three and four times.

    ``Y = n1 / (n1 + 2 n2)``, ``D_j = j - (j + 1) Y n_(j+1) / n_j``. Source: Chen and Goodman 1998, An Empirical Study
    of Smoothing Techniques for Language Modeling, equation 26. An estimate that is not above 0, or above ``j``
    (short or templated text), is replaced: with a discount of 0 an unseen word would have the probability 0.
    """
    n = counts_of_counts.astype(float).tolist()
    y = n[0] / (n[0] + 2 * n[1]) if n[0] else 0.0
    values, replaced = [], []
    for j in (1, 2, 3):
        value = j - (j + 1) * y * n[j] / n[j - 1] if n[j - 1] and y else 0.0
        if not 0.0 < value <= j:
            value = _FALLBACK[j - 1]
            replaced.append(j)
        values.append(value)
    return Discounts((values[0], values[1], values[2]), tuple(replaced))
