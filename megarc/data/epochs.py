"""One source, read again and again: which of its samples comes m-th, in whichever epoch that is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from megarc.data.local_shuffle import Locality, NearPermutation
from megarc.data.permutation import Numbers, Permutation


class Epochs:
    """Every sample of a source of ``size`` once an epoch, in a new random order each time."""

    def __init__(self, size: int, key: int, locality: Locality | None = None) -> None:
        self.size = size
        self._permute = NearPermutation(size, key, locality) if locality else Permutation(size, key)

    def __call__(self, numbers: npt.ArrayLike) -> Numbers:
        """The source's sample at each of ``numbers`` [...], counted over all epochs."""
        epoch, place = np.divmod(np.atleast_1d(np.asarray(numbers, dtype=np.int64)), self.size)
        return self._permute(place, epoch)
